// Passkeys, by @simplewebauthn/server.
import {
  generateAuthenticationOptions,
  generateRegistrationOptions,
  verifyAuthenticationResponse,
  verifyRegistrationResponse,
} from "@simplewebauthn/server";
import { Refusal, text } from "./http.mjs";
import { Pending } from "./pending.mjs";

const RP = { rpID: "notes.example.com", rpName: "Notes" };
const EXPECTED = {
  expectedOrigin: "https://notes.example.com",
  expectedRPID: RP.rpID,
  requireUserVerification: true,
};

/** What the library says of a response. It throws at whatever is not one. */
async function checked(verifying) {
  const result = await verifying.catch((error) => {
    throw new Refusal(401, `passkey: ${error.message}`);
  });
  if (!result.verified) throw new Refusal(401, "wrong");
  return result;
}

export class Passkeys {
  #store;
  #recovery;
  #registrations = new Pending();
  #logins = new Pending();

  constructor(store, recovery) {
    this.#store = store;
    this.#recovery = recovery;
  }

  routes() {
    return {
      "POST /passkeys/options": { signedIn: (account) => this.#registrationOptions(account) },
      "POST /passkeys": { signedIn: (account, body) => this.#register(account, body) },
      "POST /recover/passkey/options": { open: () => this.#loginOptions() },
      "POST /recover/passkey": { open: (body) => this.#recover(body) },
    };
  }

  async #registrationOptions(account) {
    const publicKey = await generateRegistrationOptions({
      ...RP,
      userName: account,
      userID: Buffer.from(account, "base64url"),
      attestationType: "none",
      supportedAlgorithmIDs: [-7],
      authenticatorSelection: { residentKey: "required", userVerification: "required" },
    });
    const ceremony = this.#registrations.put({ account, challenge: publicKey.challenge });
    return { ceremony, publicKey };
  }

  async #register(account, body) {
    const begun = this.#registrations.take(text(body, "ceremony"));
    if (begun.account !== account) throw new Refusal(401, "ceremony-unknown");
    const { registrationInfo } = await checked(
      verifyRegistrationResponse({
        ...EXPECTED,
        response: body.credential,
        expectedChallenge: begun.challenge,
      }),
    );
    const { id, publicKey, counter } = registrationInfo.credential;
    return this.#store.change(() => {
      const bytes = Buffer.from(publicKey);
      this.#store.run("INSERT INTO passkeys VALUES (?, ?, ?, ?)", id, account, bytes, counter);
      this.#store.audit(account, "passkey added");
      return {};
    });
  }

  async #loginOptions() {
    const publicKey = await generateAuthenticationOptions({
      rpID: RP.rpID,
      userVerification: "required",
    });
    return { ceremony: this.#logins.put(publicKey.challenge), publicKey };
  }

  async #recover(body) {
    const expectedChallenge = this.#logins.take(text(body, "ceremony"));
    const name = text(body, "name");
    const response = body.credential;
    const row = this.#store.row("SELECT * FROM passkeys WHERE id = ?", String(response?.id));
    if (!row) throw new Refusal(401, "passkey-unknown");
    const credential = { id: row.id, publicKey: row.public_key, counter: row.counter };
    const { authenticationInfo } = await checked(
      verifyAuthenticationResponse({ ...EXPECTED, response, expectedChallenge, credential }),
    );
    const counter = authenticationInfo.newCounter;
    return this.#recovery.release(row.account, name, "passkey", () => {
      // Two at once can both have passed: the second one's counter is not greater any more.
      const sql = "UPDATE passkeys SET counter = ? WHERE id = ? AND (counter < ? OR counter = 0)";
      if (this.#store.run(sql, counter, row.id, counter) === 0) throw new Refusal(401, "wrong");
    });
  }
}
