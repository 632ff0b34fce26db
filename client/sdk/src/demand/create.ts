/**
 * The browser's authenticator makes a passkey; `../webauthn.ts` uses it. Called by `passkey.ts`.
 */
import type { Bytes } from "../bytes.js";
import type { Ceremony, Options } from "../webauthn.js";
import { t } from "./t.js";

/** A passkey that was made. */
export interface Made extends Ceremony {
  readonly authenticatorData: Bytes;
}

/** `navigator.credentials.create` with the daemon's options. */
export async function createPasskey(publicKey: Options): Promise<Made> {
  const user = publicKey["user"] as Options;
  const options = {
    ...publicKey,
    challenge: t.decoded(publicKey["challenge"]),
    user: { ...user, id: t.decoded(user["id"]) },
    excludeCredentials: t.descriptors(publicKey["excludeCredentials"]),
    extensions: t.extensions(publicKey["extensions"]),
  } as unknown as PublicKeyCredentialCreationOptions;
  const credential = await t.asked(() => t.credentials().create({ publicKey: options }));
  const response = credential.response as AuthenticatorAttestationResponse;
  const made = t.answer(publicKey, credential, {
    clientDataJSON: t.text(response.clientDataJSON),
    attestationObject: t.text(response.attestationObject),
    transports: response.getTransports(),
  });
  return { ...made, authenticatorData: t.bytesOf(response.getAuthenticatorData()) };
}
