/** An app key that is bound to an account. Called by `enrol.ts`, and by `../account.ts` for a further one. */
import type { Custody } from "../custody.js";
import type { SigningKey } from "../dpop.js";
import type { PublicJwk } from "../jose.js";
import type { Unlocked } from "../keys.js";
import { t } from "./t.js";

/** What an app key says when it is bound: that its holder has the device key too. */
export async function appKeyProof(
  appKey: SigningKey,
  audience: string,
  device: PublicJwk,
  fresh: { readonly nonce: string; readonly now: number },
): Promise<string> {
  const header = { typ: "custodyd-app-key+jwt", alg: "ES256", jwk: appKey.jwk };
  const claims = {
    aud: audience,
    jkt: await t.thumbprint(device),
    nonce: fresh.nonce,
    iat: fresh.now,
  };
  return t.signJws(appKey.privateKey, header, claims);
}

/** Binds a further app key to the account. Returns its binding. */
export async function addAppKey(custody: Custody, key: Unlocked): Promise<string> {
  const { app, realm, device, transport } = custody;
  const bound = await transport.request("post", "/v1/account/app-keys", {
    body: async (fresh) => ({
      app_key_proof: await appKeyProof(key, `${realm.name}/${app}`, device.jwk, fresh),
    }),
  });
  const expected = { app, sub: t.accountOf(custody), kind: "app-key", device_id: key.thumbprint };
  await t.verifyBinding(realm, bound.binding, expected);
  return bound.binding;
}
