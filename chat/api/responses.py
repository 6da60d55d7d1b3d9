"""`POST v1/responses`: the newer of OpenAI's two forms, in front of the same completions."""

from chat.api.completions import CompletionsView
from chat.responses import objects
from chat.responses.completion import ResponseCompletion
from chat.responses.events import ResponseEvents
from chat.responses.request import parse_request


class ResponsesView(CompletionsView):
    endpoint = "responses.create"

    parse_request = staticmethod(parse_request)
    completion_class = ResponseCompletion
    # They are given completions of that class.
    build_body = staticmethod(objects.build_body)  # type: ignore[assignment]
    stream_form = ResponseEvents  # type: ignore[assignment]
