// PINs that the server never sees: OPAQUE (RFC 9807).
import { server } from "@serenity-kit/opaque";
import { Refusal, text } from "./http.mjs";
import { Pending } from "./pending.mjs";

export class Opaque {
  #store;
  #recovery;
  #serverSetup;
  #logins = new Pending();

  constructor(store, recovery, keys) {
    this.#store = store;
    this.#recovery = recovery;
    this.#serverSetup = keys.opaque;
  }

  routes() {
    return {
      "POST /opaque": {
        signedIn: (account, body) => this.#register(account, text(body, "registrationRequest")),
      },
      "PUT /opaque": {
        signedIn: (account, body) => this.#set(account, text(body, "registrationRecord")),
      },
      "POST /recover/opaque/start": {
        open: (body) => this.#start(text(body, "account"), text(body, "startLoginRequest")),
      },
      "POST /recover/opaque": {
        open: (body) =>
          this.#finish(text(body, "login"), text(body, "finishLoginRequest"), text(body, "name")),
      },
    };
  }

  #register(account, registrationRequest) {
    const serverSetup = this.#serverSetup;
    return server.createRegistrationResponse({
      serverSetup,
      userIdentifier: account,
      registrationRequest,
    });
  }

  #set(account, record) {
    return this.#store.change(() => {
      this.#store.run(
        "UPDATE accounts SET opaque_record = ?, attempts = 0 WHERE id = ?",
        record,
        account,
      );
      this.#store.audit(account, "OPAQUE PIN set");
      return {};
    });
  }

  /** The client learns from the answer whether its guess was right: so this is where an attempt is counted. */
  async #start(account, startLoginRequest) {
    const { opaque_record: registrationRecord } = await this.#recovery.charge(account);
    const { serverLoginState, loginResponse } = server.startLogin({
      serverSetup: this.#serverSetup,
      userIdentifier: account,
      registrationRecord,
      startLoginRequest,
    });
    return { login: this.#logins.put({ account, serverLoginState }), loginResponse };
  }

  async #finish(login, finishLoginRequest, name) {
    const { account, serverLoginState } = this.#logins.take(login);
    try {
      server.finishLogin({ finishLoginRequest, serverLoginState });
    } catch {
      throw new Refusal(401, "wrong");
    }
    return this.#recovery.release(account, name, "OPAQUE", () => this.#recovery.forgive(account));
  }
}
