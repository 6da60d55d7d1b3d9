from chat.completions import provider_messages, request
from chat.completions.request import FilePart, ImagePart, ImageUrl, TextPart


def test_variables() -> None:
    filled = provider_messages.fill_variables("{{a}} {{ b }} {{c}} {{}} {a} {{a b}}", {"a": "x", "b": [1, "y"]})
    assert filled == 'x [1,"y"] {{c}} {{}} {a} {{a b}}'


def test_a_variable_is_not_filled_a_second_time() -> None:
    assert provider_messages.fill_variables("{{a}}", {"a": "{{b}}", "b": "secret"}) == "{{b}}"


def test_text_of_parts() -> None:
    parts = [
        TextPart("look"),
        ImagePart(ImageUrl("https://x.example/a.png")),
        ImagePart(ImageUrl("data:image/png;base64,AAAA")),
        FilePart("https://x.example/b.pdf", "b.pdf"),
    ]
    assert request.text_of(parts) == ("look\n![](https://x.example/a.png)\n![image]\n[b.pdf](https://x.example/b.pdf)")


def test_parts_that_are_all_text_go_out_as_text() -> None:
    message = provider_messages.for_provider("developer", [TextPart("a"), FilePart("https://x.example")])
    assert message == {"role": "system", "content": "a\n[https://x.example](https://x.example)"}


def test_the_token_bound_is_never_less_than_the_bytes() -> None:
    messages = [{"role": "user", "content": "\u5bfc\u6f14\u662f\u8c01"}]
    assert provider_messages.token_bound(messages) == 12 + provider_messages.MESSAGE_OVERHEAD_TOKENS


def test_the_token_bound_counts_images() -> None:
    content = [TextPart("abc"), ImagePart(ImageUrl("https://x.example"))]
    bound = provider_messages.token_bound([{"role": "user", "content": content}])
    assert bound == 3 + provider_messages.IMAGE_TOKENS + provider_messages.MESSAGE_OVERHEAD_TOKENS
