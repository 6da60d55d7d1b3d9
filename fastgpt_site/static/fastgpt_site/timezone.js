// Tells the server which time zone the viewer's clock is in, so that pages show times as the viewer reads them.
const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
const cookie = `timezone=${zone}`;
if (zone && !document.cookie.split("; ").includes(cookie)) {
  const secure = location.protocol === "https:" ? "; Secure" : "";
  document.cookie = `${cookie}; Path=/; Max-Age=31536000; SameSite=Lax${secure}`;
}
