"""Headers that tell browsers what to refuse: foreign content, inline scripts, frames, and a machine's devices."""

from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.deprecation import MiddlewareMixin

# The hash is of the one style that Unfold writes into its lists; its colors come from a file of ours instead.
LIST_STYLE = "'sha256-+MEQ/O07HiRf96s+FyiSQj7xKrHjGPZWCed2MyGUBF4='"

# Responses that are no pages load nothing. An error page of Django's may be plain.
STRICT = "default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
# Alpine, which moves Unfold's menus, compiles the expressions in its attributes: that is what 'unsafe-eval' is for.
# Nobody's text becomes such an attribute, since templates escape it, and inline scripts stay forbidden.
ADMIN = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        f"style-src 'self' {LIST_STYLE}",
        # Alpine places menus and bars by style attributes. They run nothing.
        "style-src-attr 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
PERMISSIONS = ", ".join(
    f"{feature}=()"
    for feature in (
        "camera",
        "display-capture",
        "geolocation",
        "microphone",
        "payment",
        "publickey-credentials-get",
        "usb",
    )
)


class PageHeaders(MiddlewareMixin):
    """Sets what a view has not set for itself."""

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        is_admin = request.path.startswith(reverse("admin:index"))
        response.headers.setdefault("Content-Security-Policy", ADMIN if is_admin else STRICT)
        response.headers.setdefault("Permissions-Policy", PERMISSIONS)
        return response
