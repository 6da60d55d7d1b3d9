"""Django's PostgreSQL backend on the project's own server, started when the first connection is asked for."""

from typing import Any

from django.db.backends.postgresql import base

from fastgpt_site.postgres import cluster


class DatabaseWrapper(base.DatabaseWrapper):
    """Reads DATA_DIR in place of HOST and PORT."""

    def get_connection_params(self) -> dict[str, Any]:
        data_dir = self.settings_dict["DATA_DIR"]
        cluster.ensure(data_dir, self.settings_dict["PASSWORD"], self.settings_dict["NAME"])
        return {**super().get_connection_params(), "host": str(cluster.folder(data_dir)), "port": cluster.PORT}
