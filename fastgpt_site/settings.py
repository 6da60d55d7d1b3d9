"""All settings, read from the environment, `.env`, and the secrets file of the data folder, in that order."""

import tomllib
from pathlib import Path

import environ

from fastgpt_site import theme
from fastgpt_site.process import local_secrets

BASE_DIR = Path(__file__).resolve().parent.parent
# The project is not installed as a package, so its metadata are read where they are written.
VERSION: str = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]["version"]

env = environ.Env()
env.read_env(env.str("ENV_FILE", default="") or BASE_DIR / ".env")

# Nothing but the embedded database and the secrets of the first start lies here.
DATA_DIR = Path(env.str("DATA_DIR", default="") or BASE_DIR / "data").resolve()
DATABASE_URL = env.str("DATABASE_URL", default="")
# LISTEN needs a connection of its own that no transaction pooler hands round.
DATABASE_DIRECT_URL = env.str("DATABASE_DIRECT_URL", default="")

local_secrets.load(env, DATA_DIR, create=not DATABASE_URL)

# `serve` and `quickstart` listen here unless an option says otherwise.
PORT = env.int("PORT", default=8000)

DEBUG = env.bool("DEBUG", default=False)
SECRET_KEY = local_secrets.require(env, "SECRET_KEY")
API_KEY_PEPPERS = local_secrets.require_peppers(env, "API_KEY_PEPPERS")
ENCRYPTION_KEYS = local_secrets.require_hex_keys(env, "ENCRYPTION_KEYS")

ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]"])
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])
CORS_ALLOWED_ORIGINS = frozenset(env.list("CORS_ALLOWED_ORIGINS", default=[]))
TRUSTED_PROXIES = env.list("TRUSTED_PROXIES", default=[])
OUTBOUND_ALLOWED_NETWORKS = env.list("OUTBOUND_ALLOWED_NETWORKS", default=[])
LINK_ALLOWED_NETWORKS = env.list("LINK_ALLOWED_NETWORKS", default=[])
DEFAULT_PROVIDER_URL = env.str("DEFAULT_PROVIDER_URL", default="")

# With a token, whoever has it may read /metrics; without one, this machine alone.
METRICS_TOKEN = local_secrets.require_if_set(env, "METRICS_TOKEN")
METRICS_PER_KEY = env.bool("METRICS_PER_KEY", default=False)

# Every route under these is an API endpoint: it declares its policy and responds with JSON.
API_ROOTS = ("api/", "v1/")

# Limits of one API request. Seconds and bytes.
API_MAX_BODY_BYTES = env.int("API_MAX_BODY_BYTES", default=2 * 1024 * 1024)
DATA_UPLOAD_MAX_MEMORY_SIZE = API_MAX_BODY_BYTES
# A completion's body may hold images and files besides.
COMPLETIONS_MAX_BODY_BYTES = env.int("COMPLETIONS_MAX_BODY_BYTES", default=20 * 1024 * 1024)
# So much of large bodies one process takes at a time.
MAX_OPEN_BODY_BYTES = env.int("MAX_OPEN_BODY_BYTES", default=512 * 1024 * 1024)
API_BODY_SECONDS = env.int("API_BODY_SECONDS", default=30)
# Texts to embed come by the thousand, and as token ids.
EMBEDDINGS_MAX_BODY_BYTES = env.int("EMBEDDINGS_MAX_BODY_BYTES", default=20 * 1024 * 1024)
# Limits of connections: seconds for a request's head, seconds of silence between requests, and their number.
HEAD_SECONDS = env.int("HEAD_SECONDS", default=10)
KEEP_ALIVE_SECONDS = env.int("KEEP_ALIVE_SECONDS", default=75)
MAX_CONNECTIONS = env.int("MAX_CONNECTIONS", default=10_000)
MAX_CONNECTIONS_PER_ADDRESS = env.int("MAX_CONNECTIONS_PER_ADDRESS", default=1_000)
# A file that is imported into a dataset may take longer than other bodies.
DATASET_MAX_FILE_BYTES = env.int("DATASET_MAX_FILE_BYTES", default=100 * 1024 * 1024)
# Memory for building the index of a large dataset's vectors.
VECTOR_INDEX_MEMORY_BYTES = env.int("VECTOR_INDEX_MEMORY_BYTES", default=1024 * 1024 * 1024)
STREAM_MAX_SECONDS = env.int("STREAM_MAX_SECONDS", default=900)
STREAM_STALL_SECONDS = env.int("STREAM_STALL_SECONDS", default=60)
# So many accepted requests may be running or waiting to be recorded in one process.
RECORDER_QUEUE_SIZE = env.int("RECORDER_QUEUE_SIZE", default=4000)
# A team's share of them is what it leaves for others; a key has this bound besides.
MAX_OPEN_REQUESTS_PER_KEY = env.int("MAX_OPEN_REQUESTS_PER_KEY", default=500)
# Usage records are rolled up into daily rows after so many days; 0 keeps them all.
RETENTION_DAYS = env.int("RETENTION_DAYS", default=0)

INSTALLED_APPS = [
    # Before the admin, whose templates it replaces.
    "unfold",
    "unfold.contrib.filters",
    "unfold.contrib.forms",
    "fastgpt_site.apps.AdminConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    # Before the apps whose jobs it runs.
    "procrastinate.contrib.django",
    "rest_framework",
    "auditlog",
    "apikeys",
    "datasets",
    "chat",
    "fastgpt_site",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "fastgpt_site.middleware.time_zone.ViewerTimeZone",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "apikeys.audit.middleware.AuditMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "fastgpt_site.middleware.security_headers.PageHeaders",
    "fastgpt_site.middleware.nul_guard.PageInput",
]

ROOT_URLCONF = "fastgpt_site.urls"
ASGI_APPLICATION = "fastgpt_site.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

if DATABASE_URL:
    DATABASES = {"default": env.db_url_config(DATABASE_URL)}
    if DATABASES["default"]["ENGINE"] == "django.db.backends.postgresql":
        # A network that swallows packets must not hold a request for as long as TCP likes.
        patience = {"connect_timeout": 5, "keepalives_idle": 5, "keepalives_interval": 2, "tcp_user_timeout": 10_000}
        DATABASES["default"]["OPTIONS"] = patience | DATABASES["default"].get("OPTIONS", {})
else:
    DATABASES = {
        "default": {
            "ENGINE": "fastgpt_site.postgres",
            "NAME": "fastgpt",
            "USER": "postgres",
            "PASSWORD": local_secrets.require(env, "DATABASE_PASSWORD"),
            "DATA_DIR": DATA_DIR,
        }
    }

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# Mails and commands speak it, and pages to a browser that asks for neither language.
LANGUAGE_CODE = env.str("LANGUAGE_CODE", default="en")
LANGUAGES = [("en", "English"), ("zh-hans", "简体中文")]
LOCALE_PATHS = [BASE_DIR / "locale"]
TIME_ZONE = env.str("TIME_ZONE", default="UTC")
USE_TZ = True

UNFOLD = theme.UNFOLD
# Unfold's sign-in form does not say where to go on.
LOGIN_REDIRECT_URL = "admin:index"

# Entries with their team and the name of who did it; values as JSON has them, related rows by their names.
AUDITLOG_LOGENTRY_MODEL = "apikeys.AuditEntry"
AUDITLOG_STORE_JSON_CHANGES = True
AUDITLOG_USE_FK_STRING_REPRESENTATION = True
# Unfold would keep what its search found for five minutes, also for who has left the team meanwhile.
CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}

STATIC_URL = "static/"
# The admin's few files are served from where they are installed; nothing has to be collected.
WHITENOISE_USE_FINDERS = True

# HTTPS=true says that the site is reached over HTTPS only (normally behind a proxy named in TRUSTED_PROXIES).
HTTPS = env.bool("HTTPS", default=False)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = HTTPS
# Prometheus asks a server itself, past the proxy that has the certificate.
SECURE_REDIRECT_EXEMPT = [r"^metrics$"]
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if HTTPS else None
SESSION_COOKIE_HTTPONLY = True
# A working day; who does something delicate enters the password again, see `apikeys.sign_in.reauthentication`.
SESSION_COOKIE_AGE = env.int("SESSION_COOKIE_AGE", default=43_200)
X_FRAME_OPTIONS = "DENY"
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "apikeys.access.authentication.ApiKeyAuthentication",
        "apikeys.access.authentication.StaffSessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["apikeys.access.permissions.EndpointAccess"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": [],
    "EXCEPTION_HANDLER": "fastgpt_site.http.errors.exception_handler",
    "UNAUTHENTICATED_USER": "django.contrib.auth.models.AnonymousUser",
}

# These modules declare the background jobs of each app.
PROCRASTINATE_AUTODISCOVER_MODULE_NAME = "jobs"

# Without EMAIL_URL nobody is sent mail. The URL itself, which holds a password, is not kept.
_mail = env.email_url_config(env.str("EMAIL_URL", default="") or "dummymail://")
EMAIL_BACKEND = _mail["EMAIL_BACKEND"]
HAS_MAIL = not EMAIL_BACKEND.endswith(".dummy.EmailBackend")
EMAIL_HOST, EMAIL_PORT = _mail["EMAIL_HOST"], _mail["EMAIL_PORT"]
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = _mail["EMAIL_HOST_USER"], _mail["EMAIL_HOST_PASSWORD"]
EMAIL_USE_TLS, EMAIL_USE_SSL = _mail.get("EMAIL_USE_TLS", False), _mail.get("EMAIL_USE_SSL", False)
EMAIL_FILE_PATH = _mail["EMAIL_FILE_PATH"]
EMAIL_TIMEOUT = 10
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", default="fastgpt@localhost")

LOG_LEVEL = env.str("LOG_LEVEL", default="INFO")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "fastgpt_site.observability.logs.JsonFormatter"}},
    "handlers": {"stderr": {"class": "fastgpt_site.observability.logs.LineHandler", "formatter": "json"}},
    "root": {"handlers": ["stderr"], "level": LOG_LEVEL},
    "loggers": {
        # While this handler is the only one, the access log's lines come to it without a record: neither filters nor
        # the formatter see them.
        "fastgpt_site.access": {"handlers": ["stderr"], "propagate": False},
        # Django's own handlers would write each line a second time, as text.
        "django": {"handlers": [], "propagate": True},
        "django.server": {"handlers": [], "propagate": True},
        "django.request": {"level": "ERROR"},
        # It tells of every job at INFO, several lines every ten seconds.
        "procrastinate": {"level": "WARNING"},
        # And this one of every connection that is added.
        "psycopg.pool": {"level": "WARNING"},
        "uvicorn": {"handlers": [], "propagate": True},
        "uvicorn.error": {"handlers": [], "propagate": True},
        # Configuring "uvicorn" would wake its access log, which has query strings; the project writes its own.
        "uvicorn.access": {"handlers": [], "propagate": False},
    },
}
