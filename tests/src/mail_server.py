"""A mail server for the tests: aiosmtpd, one JSON object a line for each mail it takes.

    mail_server.py PORT MODE CERTIFICATE KEY [USER PASSWORD]

MODE is starttls (demanded), implicit or none. It says "ready" once it listens. What it answers
depends on the recipient: refused@... gets 550, later@... gets 451 once and is taken after that.
With USER and PASSWORD a login is demanded.
"""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword


class Handler:
    def __init__(self):
        self.put_off = set()

    async def handle_RCPT(self, server, session, envelope, address, options):
        local = address.split("@")[0]
        if local == "refused":
            return f"550 <{address}>: no such user here"
        if local == "later" and address not in self.put_off:
            self.put_off.add(address)
            return f"451 <{address}>: try again"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            "from": envelope.mail_from,
            "to": envelope.rcpt_tos[0],
            "recipients": len(envelope.rcpt_tos),
            "subject": str(mail["subject"]),
            "body": mail.get_content().replace("\r\n", "\n"),
            "headers": {name.lower(): str(value) for name, value in mail.items()},
            "tls": session.ssl is not None,
            "user": session.authenticated,
        }), flush=True)
        return "250 OK"


async def main():
    port, mode, certificate, key, *login = sys.argv[1:]
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    options = {"hostname": "localhost"}
    if mode == "starttls":
        options |= {"tls_context": tls, "require_starttls": True}
    if login:
        wanted = LoginPassword(login[0].encode(), login[1].encode())

        def authenticate(server, session, envelope, mechanism, given):
            # Not handled: the server is to answer a wrong one itself, with 535.
            return AuthResult(success=given == wanted, handled=False)

        options |= {"authenticator": authenticate, "auth_required": True}
        # Without this, aiosmtpd offers a login only where it made the TLS itself.
        options["auth_require_tls"] = mode == "starttls"
    handler = Handler()
    server = await asyncio.get_running_loop().create_server(
        lambda: SMTP(handler, **options), "127.0.0.1", int(port),
        ssl=tls if mode == "implicit" else None)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
