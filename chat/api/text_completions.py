"""`POST v1/completions`: OpenAI's older text completions, answered by an app like a chat completion."""

from chat.api.completions import CompletionsView
from chat.completions.text_format import TextStreamFormat, text_completion
from chat.completions.text_request import parse_text_request


class TextCompletionsView(CompletionsView):
    endpoint = "completions.create"

    parse_request = staticmethod(parse_text_request)
    build_body = staticmethod(text_completion)
    stream_form = TextStreamFormat
