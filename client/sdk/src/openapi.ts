/**
 * The shapes of the daemon's REST interface, generated from its `/openapi.json` by
 * scripts/types.mjs. Never edited by hand; a test holds it against the daemon.
 */
export interface paths {
    "/.well-known/jwks.json": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The realm's public keys (RFC 7517): verify bindings with them */
        get: operations["get_well_known_jwks_json"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/.well-known/webauthn": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The origins that may use the passkeys of the app whose relying party is this host
         * @description Browsers ask it of `https://<relying party id>` before a page of another site may use those
         *     passkeys (WebAuthn Level 3, related origin requests). So the identifier's own host must lead
         *     to custodyd for this path. The list is the policy's `origins`.
         */
        get: operations["get_well_known_webauthn"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/log/checkpoint": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The newest checkpoint
         * @description A C2SP signed note over the log's origin, size and root, signed in the token with the
         *     checkpoint key of `/.well-known/jwks.json` (ECDSA P-256, signature type 0x02). Below it stand the
         *     lines of witnesses that have cosigned this very checkpoint until now.
         */
        get: operations["get_log_checkpoint"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/log/checkpoint/witnessed": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The newest checkpoint that enough witnesses have cosigned
         * @description As the newest one, with at least as many lines of witnesses below the log's own as the
         *     configuration wants (C2SP tlog-cosignature). While the log grows it is some entries behind.
         */
        get: operations["get_log_checkpoint_witnessed"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/log/tile/entries/{index}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Entries of the log
         * @description Each behind its length as two bytes, the higher first. `index` as for hashes.
         */
        get: operations["get_log_tile_entries_index"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/log/tile/{level}/{index}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Hashes of the log
         * @description `index` in groups of three digits, all but the last with an `x` before it and a `/` behind:
         *     `x001/x234/067`. A partial tile has `.p/` and its width, 1 to 255, behind that. Only what the
         *     newest checkpoint covers is there.
         */
        get: operations["get_log_tile_level_index"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** The account: keys, devices, factors and the names of its secrets */
        get: operations["get_v1_account"];
        put?: never;
        post?: never;
        /**
         * Erase the account, for good
         * @description Needs a fresh session by the strongest factor that the account has. Secrets, devices, factors,
         *     aliases and the bodies of all events go in one commit; every session ends; the account's
         *     identifier can not be used again.
         */
        delete: operations["delete_v1_account"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/alias": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Name an alias
         * @description An address by which the account is found, and which gets nothing but the code that proves
         *     it. Whether it is another account's already is told to nobody: its confirmation fails then.
         */
        put: operations["put_v1_account_alias"];
        post?: never;
        /** Remove an alias, or the claim to one */
        delete: operations["delete_v1_account_alias"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/alias/confirm": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Confirm an alias */
        post: operations["post_v1_account_alias_confirm"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/app-keys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Bind a further app key
         * @description To rotate, add the new key and then remove the old one. At most 8 keys. Needs a fresh session
         *     with the strongest factor that the account has. A key that is bound already is answered with
         *     the binding that it has.
         */
        post: operations["post_v1_account_app_keys"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/app-keys/{device_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Remove an app key
         * @description From then on the look-up by the app's backend says `revoked`. The last key stays: add another
         *     first. Needs a fresh session with the strongest factor that the account has.
         */
        delete: operations["delete_v1_account_app_keys_device_id"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/contact": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Name a contact
         * @description Sends a code to the address; confirm it with that code, from the device that asked. Until
         *     then it is a claim that gives nothing. `replaces` names the contact that goes when this one
         *     is confirmed: its address is told. A second claim takes the place of the first. Needs a fresh
         *     session of a PIN, a passkey or the account's creation.
         */
        put: operations["put_v1_account_contact"];
        post?: never;
        /**
         * Remove a contact, or the claim to one
         * @description Its address is told, and so are the contacts that stay.
         */
        delete: operations["delete_v1_account_contact"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/contact/confirm": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Confirm a contact
         * @description With the code that was sent to it. From then on codes and notices go there, and unless the
         *     policy says otherwise the account is found by it.
         */
        post: operations["post_v1_account_contact_confirm"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/devices": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Bind this device
         * @description A bound device may try the PIN and open read-only sessions. Needs a fresh session.
         */
        post: operations["post_v1_account_devices"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/devices/{device_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Remove another device; its sessions end */
        delete: operations["delete_v1_account_devices_device_id"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/events": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * The account's events, newest first
         * @description Numbered without gaps; each names the log entry of the one before it. Each is proven against
         *     the page's checkpoint.
         */
        get: operations["get_v1_account_events"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/export": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Export everything held about the owner, in one document
         * @description Secrets come with it where the policy releases them to the session's factor; each release is
         *     an event, and so is the export. The newest 1000 events are in the document.
         */
        get: operations["get_v1_account_export"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/offline-report": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Report wrong PINs that were tried without a network
         * @description For a device that keeps a copy which a PIN opens offline. The number becomes an event
         *     (`offline-pins-refused`, with the number as its detail) that the owner reads on every device; no
         *     budget is charged. Any session will do, a read-only one too. Where the answer is
         *     lost, a report that is sent again is a second event: it tells too much rather than nothing.
         */
        post: operations["post_v1_account_offline_report"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/opaque/finish": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Register a PIN by OPAQUE
         * @description It takes the place of the PIN that the account has, also of one that the server checks. `key_stretching` is
         *     what the client has spent on it: the policy has a minimum, and every login is told to spend the same.
         *     `secrets` stores contents rewrapped for the new PIN in the same commit. Every other session that
         *     the old PIN opened ends.
         */
        post: operations["post_v1_account_opaque_finish"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/opaque/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Begin to register a PIN by OPAQUE
         * @description Offline registration of RFC 9807, section 5, with ristretto255 and SHA-512. The PIN stays with the
         *     client. Needs what `PUT /v1/account/pin` needs. Nothing is changed yet.
         */
        post: operations["post_v1_account_opaque_start"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/passkeys": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Register a passkey
         * @description Needs a fresh session of a passkey or the account's creation, or of the account's strongest
         *     factor. The device identifier is the SHA-256 of the COSE public key.
         */
        post: operations["post_v1_account_passkeys"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/passkeys/options": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /** Options to register a passkey, or with `confirm` to confirm one */
        post: operations["post_v1_account_passkeys_options"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/passkeys/{device_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Remove a passkey; the sessions that it opened end
         * @description Its slots go with it, in the same commit; secrets that would not open any more refuse it.
         */
        delete: operations["delete_v1_account_passkeys_device_id"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/passkeys/{device_id}/confirm": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Confirm a passkey that expires
         * @description From any session that may write, by an assertion of that passkey itself.
         */
        post: operations["post_v1_account_passkeys_device_id_confirm"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/pin": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        /**
         * Set or change the PIN
         * @description The server sees the PIN and hashes it. `POST /v1/account/opaque/start` sets one that stays with the client.
         *
         *     Needs a fresh session of a PIN, a passkey or the account's creation. `secrets` stores
         *     contents rewrapped for the new PIN in the same commit. Every other session that the old PIN
         *     opened ends.
         */
        put: operations["put_v1_account_pin"];
        post?: never;
        /** Remove the PIN */
        delete: operations["delete_v1_account_pin"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/recovery": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Cancel every change that waits
         * @description Where the policy delays them, a factor that is too weak by itself may ask for a new PIN or
         *     for its device to be bound; `GET /v1/account` lists what waits. Any session may cancel.
         */
        delete: operations["delete_v1_account_recovery"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/recovery-codes": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Set or replace the recovery codes
         * @description The client makes ten codes and sends their auth parts. Needs a fresh session of a passkey, a
         *     recovery code or the account's creation, where the account has a factor that strong.
         *     `secrets` stores contents rewrapped for the new set in the same commit.
         */
        post: operations["post_v1_account_recovery_codes"];
        /** Remove the recovery codes */
        delete: operations["delete_v1_account_recovery_codes"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/secrets": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /** List the secrets: names and versions */
        get: operations["get_v1_account_secrets"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/secrets/{name}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Recover a secret
         * @description The policy's release rules say which factor may have it; the release is an event.
         */
        get: operations["get_v1_account_secrets_name"];
        /**
         * Back a secret up
         * @description `If-None-Match: *` to create, `If-Match: "<version>"` to replace. Names by convention:
         *     `device-secret` and `app-key`. Content and slots are sealed by the client, as `client/sdk/SLOTS.md` describes; a slot
         *     names a factor that the account has, PRF is never the only one, and a session changes the slots of no factor that
         *     is stronger than its own. A secret that is there is replaced and deleted by a session that may read it
         *     (`step-up-required`, with `need_one_of`); one that is not, any session that writes may make.
         */
        put: operations["put_v1_account_secrets_name"];
        post?: never;
        /** Delete a secret */
        delete: operations["delete_v1_account_secrets_name"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/totp": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Enrol an authenticator app
         * @description Returns its secret, once: as `otpauth` URI, and as QR code in SVG and PNG. It is not in use
         *     until a code confirms it; an app in use stays in use until then. Needs a fresh session at
         *     least as strong as TOTP, where the account has a factor that strong.
         */
        post: operations["post_v1_account_totp"];
        /** Remove the authenticator app */
        delete: operations["delete_v1_account_totp"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/account/totp/confirm": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Confirm the authenticator app with a code
         * @description Charged like a sign-in; the code can not be used for one any more. `secrets` stores contents
         *     rewrapped for the new factor in the same commit.
         */
        post: operations["post_v1_account_totp_confirm"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/accounts": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Create an account
         * @description Binds the app's public key and this device's DPoP key to a new account. Two proofs of
         *     possession: the DPoP proof of this request (RFC 9449, signed by the device key, with the
         *     claim `body_sha256`), and `app_key_proof` (signed by the app's private key over the
         *     device key's thumbprint). The session in the answer counts as fresh for ten minutes: add a
         *     PIN or a passkey within it. An `Idempotency-Key` makes a repeated request return the same
         *     account, within those ten minutes and from the same keys.
         *
         *     A `ticket` of the app's backend enrols whatever the policy says of open enrolment, and is not
         *     counted in its hourly quota. It makes one account: brought again, by the same keys within ten
         *     minutes, it returns that account; else `account-exists`.
         */
        post: operations["post_v1_apps_app_accounts"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/bindings/{device_id}": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        /**
         * Is this key still bound to this account?
         * @description For the app's backend, before it takes a signature by an app key, device key or passkey. The
         *     account must be named, because nothing here maps a key to its account: whoever holds a
         *     binding finds the account in its claim `sub`. An account or a key that this app does not have
         *     is `unknown`. A key that was removed is `revoked`; the account remembers the last 32.
         */
        get: operations["get_v1_apps_app_bindings_device_id"];
        put?: never;
        post?: never;
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/otp": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Ask for a code
         * @description Answered at once, and alike whether there is such an account or not. A code that is sent can
         *     be used once, from this device, for `valid_for` seconds. Where one was sent a moment ago, or many within a day, no
         *     other is: this device may then use the one that was sent last, whose message says how long it is good.
         */
        post: operations["post_v1_apps_app_otp"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/device": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Open a read-only session
         * @description With the key of a bound device alone: asks the owner for nothing, and may read only.
         */
        post: operations["post_v1_apps_app_sessions_device"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/opaque/finish": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in with a PIN by OPAQUE
         * @description The end of a login that this device began, until it expires. `release` returns secrets with the session.
         */
        post: operations["post_v1_apps_app_sessions_opaque_finish"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/opaque/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Begin to sign in with a PIN by OPAQUE
         * @description Online login of RFC 9807, section 6, with ristretto255 and SHA-512, 3DH, no context and no identifiers. The attempt
         *     is charged before the answer is made, and a right end gives it back. A device that is not bound
         *     to the account gets an answer that no PIN fits, unless the policy has a budget for strangers' PINs; whether there is
         *     such an account does not show. It is charged nothing.
         */
        post: operations["post_v1_apps_app_sessions_opaque_start"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/otp": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in with a code
         * @description From the device that asked for it. A device that is not bound gets what the policy says: a
         *     full session, or one of scope `pin-only`, which may go on with `POST /v1/session/pin`,
         *     replace a forgotten PIN or bind the device where the policy's `[recover]` says so, and sign
         *     out. Such a session releases nothing and binds nothing: ask for that with the PIN.
         */
        post: operations["post_v1_apps_app_sessions_otp"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/passkey": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in with a passkey
         * @description From any device. `bind_device` binds this device's key to the account in the same commit. A
         *     body with `prf.results` is refused: that secret is the client's alone.
         */
        post: operations["post_v1_apps_app_sessions_passkey"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/passkey/options": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Options for signing in with a passkey
         * @description Pass `publicKey` to `navigator.credentials.get` and send its answer with `ceremony`. With
         *     `account`, and from a bound device, `allowCredentials` lists the account's passkeys;
         *     otherwise the passkey is discovered. `extensions.prf.eval.first` is the app's constant PRF
         *     salt.
         */
        post: operations["post_v1_apps_app_sessions_passkey_options"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/pin": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in with a PIN
         * @description Only from a device that is bound to the account; everybody else gets
         *     `authentication-failed`, unless the policy has a budget for strangers' PINs. The attempt is
         *     charged before the PIN is looked at. `release` returns secrets with the session.
         */
        post: operations["post_v1_apps_app_sessions_pin"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/recovery-code": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in with a recovery code
         * @description From any device; each code once. `bind_device` binds this device's key to the account in the
         *     same commit. A device that is not bound gets `authentication-failed` for every code that is
         *     not right, and can not use up anybody's attempts.
         */
        post: operations["post_v1_apps_app_sessions_recovery_code"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/apps/{app}/sessions/totp": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Sign in with a code of the authenticator app
         * @description Only from a device that is bound to the account; everybody else gets
         *     `authentication-failed`. The attempt is charged before the code is looked at, and each code
         *     opens one session at most.
         */
        post: operations["post_v1_apps_app_sessions_totp"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/session": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /**
         * Sign out
         * @description Ends all sessions of this device; of a device that is not bound, this one session.
         */
        delete: operations["delete_v1_session"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/session/opaque/finish": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Go on with a PIN by OPAQUE
         * @description Makes a full session of one of scope `pin-only`.
         */
        post: operations["post_v1_session_opaque_finish"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/session/opaque/start": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Begin to go on with a PIN by OPAQUE
         * @description For a session of scope `pin-only`. The PIN is tried on a budget of its own, as by `POST /v1/session/pin`.
         */
        post: operations["post_v1_session_opaque_start"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/session/pin": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Go on with the PIN
         * @description Makes a full session of one of scope `pin-only`. The PIN is tried on a budget of its own,
         *     which is not that of the bound devices; how much of it is left is not told.
         */
        post: operations["post_v1_session_pin"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/session/refresh": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        /**
         * Refresh the session
         * @description Returns a token for the same session whose idle time starts again. The absolute end stays.
         */
        post: operations["post_v1_session_refresh"];
        delete?: never;
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
    "/v1/sessions": {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        get?: never;
        put?: never;
        post?: never;
        /** Sign out everywhere */
        delete: operations["delete_v1_sessions"];
        options?: never;
        head?: never;
        patch?: never;
        trace?: never;
    };
}
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        AccountCreated: {
            /** Format: uuid */
            account: string;
            /** @description JWS that the realm signed in its token: keep them as receipts. */
            bindings: components["schemas"]["CreatedBindings"];
            log?: components["schemas"]["LogReceipt"] | null;
            /** @description Whether this app's policy lets a secret have a server slot. */
            server_slot: boolean;
            session: components["schemas"]["SessionToken"];
        };
        /** @description The owner's view of the account. */
        AccountView: {
            /** Format: uuid */
            account: string;
            /** @description Addresses by which the account is found, beside the contacts. */
            aliases: components["schemas"]["AddressView"][];
            app: string;
            app_keys: components["schemas"]["KeyView"][];
            /** @description Where codes and notices go. */
            contacts: components["schemas"]["AddressView"][];
            /** Format: int64 */
            created: number;
            devices: components["schemas"]["DeviceView"][];
            passkeys: components["schemas"]["PasskeyView"][];
            pin?: components["schemas"]["PinView"] | null;
            recovery_codes?: components["schemas"]["RecoveryCodesView"] | null;
            /** @description No factor can be used from an unknown device: losing this one loses the account. */
            recovery_incomplete: boolean;
            secrets: components["schemas"]["SecretEntry"][];
            /** @description Whether this app's policy lets a secret have a server slot. */
            server_slot: boolean;
            totp?: components["schemas"]["TotpView"] | null;
            /** @description An authenticator app waits to be confirmed. */
            totp_pending: boolean;
            /** @description Changes that wait because a weaker factor asked for them. */
            waiting: components["schemas"]["WaitingChange"][];
        };
        AddAppKey: {
            /**
             * @description As in account creation: a JWS by the new app key over this device's thumbprint and the
             *     newest nonce.
             */
            app_key_proof: string;
        };
        AddPasskey: {
            ceremony: string;
            /** @description `RegistrationResponseJSON` (WebAuthn Level 3), without `prf.results`. */
            credential: Record<string, never>;
            /** @description What the owner calls this passkey; at most 64 characters. */
            name?: string | null;
            secrets?: {
                [key: string]: components["schemas"]["Rewrapped"];
            };
        };
        /** @description A claim: confirm it with the code that is on its way to the address. */
        AddressClaimed: {
            /** @description JWS that the realm signed in its token: keep it as a receipt. */
            binding: string;
            /** @description Device identifier of the secret that its codes are made from. */
            device_id: string;
            /**
             * Format: int64
             * @description Until then the code can be used.
             */
            expires: number;
            /** @description Names the address in later requests. */
            id: string;
        };
        /** @description A contact or an alias as its owner sees it. */
        AddressView: {
            /** Format: int64 */
            added: number;
            /** @description The address. Null in a read-only session: whoever holds the device need not learn it. */
            address?: string | null;
            binding: string;
            channel: string;
            /**
             * Format: int64
             * @description Null for a claim: a code to this address has not come back yet.
             */
            confirmed?: number | null;
            device_id: string;
            id: string;
        };
        AliasView: {
            /** @description Its kind, a colon, and the name in its normal form. */
            name: string;
            /** Format: int64 */
            since: number;
        };
        BindDevice: {
            /** @description What the owner calls this device; at most 64 characters. */
            name?: string | null;
        };
        /** @enum {string} */
        BindingStatus: "bound" | "unconfirmed" | "revoked" | "unknown";
        /** @description A factor or device that the realm has bound. */
        Bound: {
            /** @description JWS that the realm signed in its token: keep it as a receipt. */
            binding: string;
            device_id: string;
        };
        /** @description Options for `navigator.credentials`, and the ceremony token to send back with the answer. */
        CeremonyOptions: {
            /** @description Opaque; expires as the policy says and can be used once. */
            ceremony: string;
            /**
             * @description `PublicKeyCredentialCreationOptionsJSON` or `PublicKeyCredentialRequestOptionsJSON`
             *     (WebAuthn Level 3).
             */
            publicKey: Record<string, never>;
        };
        /** @description The same for everybody, whether there is such an account or not. */
        CodeRequested: {
            /**
             * Format: int64
             * @description A code can be used for so many seconds, at the least: where many were sent within a day, until the next may be.
             */
            valid_for: number;
        };
        CodeSession: {
            /** Format: uuid */
            account?: string | null;
            /** @description An e-mail address or a telephone number. */
            alias?: string | null;
            bind_device?: components["schemas"]["BindDevice"] | null;
            /** @description As it was sent; blanks, hyphens and case do not matter. */
            code: string;
            /** @description Names of the secrets to return with the session, in the same commit. */
            release?: string[];
        };
        ConfirmAddress: {
            code: string;
            id: string;
        };
        ConfirmPasskey: {
            ceremony: string;
            credential: Record<string, never>;
        };
        ConfirmTotp: {
            /** Format: password */
            code: string;
            /** @description Secrets rewrapped for the new factor, stored in the same commit. */
            secrets?: {
                [key: string]: components["schemas"]["Rewrapped"];
            };
        };
        CreateAccount: {
            /**
             * @description Compact JWS made with the app's private key: header `typ` `custodyd-app-key+jwt`, `alg`
             *     `ES256`, `jwk` (the app's public key); claims `aud` (`<realm>/<app>`), `jkt` (RFC 7638
             *     thumbprint of the device key of this request's DPoP proof), `nonce` (the newest
             *     `DPoP-Nonce`), `iat`. It proves that the client holds the app's private key and wants
             *     it bound together with this device.
             */
            app_key_proof: string;
            /** @description What the owner calls this device; at most 64 characters. */
            device_name?: string | null;
            /**
             * @description Permission of the app's backend, where the app's policy asks for one or limits enrolment
             *     without: a JWT, header `typ` `custodyd-ticket+jwt`, `alg` `ES256`, `kid` (a key that the
             *     policy lists); claims `iss` (the app), `aud` (`<realm>/<app>`), `exp` (at most 24 hours
             *     ahead), `jti` (1 to 128 bytes, never used before), and, if it is for one device only,
             *     `jkt` (RFC 7638 thumbprint of its device key). It makes one account.
             */
            ticket?: string | null;
        };
        CreatedBindings: {
            app_key: string;
            device_key: string;
        };
        DeviceBound: {
            device: components["schemas"]["Bound"];
            /** @description Replaces the session that asked. */
            session: components["schemas"]["SessionToken"];
        };
        DeviceSession: {
            /** Format: uuid */
            account: string;
            release?: string[];
        };
        DeviceView: {
            /** Format: int64 */
            added: number;
            binding: string;
            /** @description The device that asks. */
            current: boolean;
            device_id: string;
            name?: string | null;
        };
        EnrolTotp: {
            /** @description What the authenticator app shows beside the app's name: 1 to 128 bytes, no colon. */
            label?: string | null;
        };
        EraseAccount: {
            /**
             * Format: uuid
             * @description The account's identifier once more: nobody erases by a slip.
             */
            confirm: string;
        };
        /** @description An event as it stands in the log and as its owner reads it. */
        Event: {
            /**
             * Format: int64
             * @description Seconds since the Unix epoch.
             */
            at: number;
            detail?: string | null;
            device_id?: string | null;
            factor?: string | null;
            kind: components["schemas"]["EventKind"];
            /**
             * Format: int64
             * @description Counts the account's events from 1, without gaps.
             */
            number: number;
            /**
             * Format: int64
             * @description Log entry of the event before this one.
             */
            previous?: number | null;
        };
        /**
         * @description What happened. Stable names: they stand in the log for ever.
         * @enum {string}
         */
        EventKind: "account-created" | "device-bound" | "device-removed" | "pin-set" | "pin-removed" | "pin-charged" | "pin-refused" | "passkey-added" | "passkey-removed" | "passkey-confirmed" | "passkey-refused" | "session-started" | "session-ended" | "sessions-ended" | "secret-stored" | "secret-released" | "secret-deleted" | "slots-dropped" | "contact-claimed" | "contact-confirmed" | "contact-removed" | "alias-claimed" | "alias-confirmed" | "alias-removed" | "code-sent" | "code-charged" | "code-refused" | "totp-enrolled" | "totp-added" | "totp-removed" | "totp-charged" | "totp-refused" | "recovery-codes-set" | "recovery-codes-removed" | "recovery-code-charged" | "recovery-code-refused" | "recovery-code-spent" | "recover-requested" | "recover-cancelled" | "recover-used" | "account-exported" | "app-key-added" | "app-key-removed" | "offline-pins-refused";
        EventPage: {
            /** @description C2SP signed note that the proofs of this page lead to. */
            checkpoint: string;
            /**
             * Format: int64
             * @description From this number on the trail is complete: what earlier events said was kept for as long as
             *     the app's policy says, and is deleted. 1 where nothing is; one more than the number of the
             *     newest event where everything is.
             */
            complete_from: number;
            /**
             * @description That its log continues the one that had `since` entries (RFC 6962, section 2.1.2), hashes
             *     in base64. Absent where it has fewer: then keep both checkpoints, and ask who runs this.
             */
            consistency?: string[] | null;
            /** @description Newest first. */
            events: components["schemas"]["ProvenEvent"][];
            /** @description Give it as `?from=` for the page after this one; absent on the last. */
            next?: string | null;
        };
        /** @description Everything that is held about the owner, in one document. */
        Export: {
            account: components["schemas"]["AccountView"];
            aliases: components["schemas"]["AliasView"][];
            /** @description Newest first. */
            events: components["schemas"]["Event"][];
            /**
             * Format: int64
             * @description From this number on the trail is complete; what earlier events said is deleted.
             */
            events_complete_from: number;
            /** @description Where the account has more events: `GET /v1/account/events?from=` continues with it. */
            events_next?: string | null;
            /** Format: int64 */
            exported: number;
            /**
             * Format: int32
             * @description The version of this document's shape.
             */
            format: number;
            /** @description Devices that were removed: their mark stays until no session of theirs can last any more. */
            removed_devices: components["schemas"]["RemovedDeviceView"][];
            /** @description The secrets that the policy releases to this session's factor, with their contents. */
            secrets: {
                [key: string]: components["schemas"]["Secret"];
            };
            /** @description Those that it does not: sign in with another factor to export them. */
            secrets_withheld: string[];
        };
        FinishOpaqueAfterCode: {
            bind_device?: components["schemas"]["BindDevice"] | null;
            /**
             * Format: byte
             * @description KE3: 64 bytes.
             */
            ke3: string;
            login: string;
            release?: string[];
        };
        FinishOpaqueRegistration: {
            /** @description What the client has spent on the PIN, and has to spend again at each login. */
            key_stretching: components["schemas"]["KeyStretching"];
            /**
             * Format: byte
             * @description RegistrationRecord: 192 bytes.
             */
            record: string;
            registration: string;
            /** @description Secrets rewrapped for the new factor, stored in the same commit. */
            secrets?: {
                [key: string]: components["schemas"]["Rewrapped"];
            };
        };
        FinishOpaqueSession: {
            /**
             * Format: byte
             * @description KE3: 64 bytes.
             */
            ke3: string;
            login: string;
            /** @description Names of the secrets to return with the session, in the same commit. */
            release?: string[];
        };
        /**
         * @description The key stretching function of the client: Argon2id version 1.3 (RFC 9106) with a salt of sixteen zero bytes, as
         *     RFC 9807, section 7, recommends. Parameter t is `passes`, m is `memory_kib`, p is `lanes`.
         */
        KeyStretching: {
            /** Format: int32 */
            lanes: number;
            /**
             * Format: int32
             * @description Memory in KiB.
             */
            memory_kib: number;
            /** Format: int32 */
            passes: number;
        };
        KeyView: {
            /** Format: int64 */
            added: number;
            binding: string;
            device_id: string;
            jwk: Record<string, never>;
        };
        /**
         * @description An event's log entry. Its leaf is the byte 0x01 and SHA-256 over three fields, each behind its
         *     length as four bytes, the highest first: `custodyd/event/v1`, `salt`, `body`.
         */
        LogEntry: {
            /**
             * Format: byte
             * @description The event, sealed under a key of the account.
             */
            body: string;
            /** Format: int64 */
            index: number;
            /**
             * @description Audit path (RFC 6962, section 2.1.1) up to the root of the page's checkpoint, in base64 as
             *     there. Absent where the checkpoint does not cover the entry yet.
             */
            proof?: string[] | null;
            /** Format: byte */
            salt: string;
        };
        /** @description Where the log says that this happened: keep it, the log can never lose it unnoticed. */
        LogReceipt: {
            /**
             * Format: int64
             * @description Index of the log entry.
             */
            index: number;
            /**
             * Format: byte
             * @description The entry itself: a type byte and a commitment to the event.
             */
            leaf: string;
            /**
             * @description C2SP tlog-proof of the entry, with a checkpoint that the realm signed. Absent where the
             *     entry is not covered by one yet; then `GET /v1/account/events` proves it later.
             */
            proof?: string | null;
        };
        /** @description `issued`, `kind` and `binding` are there as far as the realm knows them. */
        LookedUp: {
            /** @description The binding itself, of one that holds: JWS that the realm signed in its token. */
            binding?: string | null;
            /**
             * Format: int64
             * @description When the binding was signed.
             */
            issued?: number | null;
            /** @example app-key */
            kind?: string | null;
            /**
             * Format: int64
             * @description When it was revoked.
             */
            revoked?: number | null;
            status: components["schemas"]["BindingStatus"];
        };
        /** @description Asks for registration options, or with `confirm` for an assertion of that passkey. */
        ManagePasskeyOptions: {
            /** @description Device identifier of a passkey to confirm. */
            confirm?: string | null;
            /** @description Name that the authenticator shows beside the passkey; at most 64 characters. */
            user_name?: string | null;
        };
        OfflineReport: {
            /**
             * Format: int32
             * @description PINs that were tried against this device's own copy and did not open it, since the last report.
             */
            wrong_pins: number;
        };
        /**
         * @description An attempt was charged for this, whatever comes of it; a right end gives it back. Whether the PIN was right shows the
         *     client's library. The last three are told to a bound device only.
         */
        OpaqueLoginStarted: {
            /**
             * Format: int32
             * @description Attempts that may be made now, if this one was wrong.
             */
            attempts_left?: number | null;
            /** @description No attempt is left, if this one was wrong. */
            exhausted?: boolean | null;
            /**
             * Format: int64
             * @description The login may be finished until then.
             */
            expires: number;
            /**
             * Format: byte
             * @description KE2: 320 bytes.
             */
            ke2: string;
            /** @description What was spent on the PIN when it was registered. */
            key_stretching: components["schemas"]["KeyStretching"];
            /** @description Opaque; send it back with the end of the login. It can be used once. */
            login: string;
            /**
             * Format: int64
             * @description The next attempt may be made then, if this one was wrong.
             */
            wait_until?: number | null;
        };
        OpaqueRegistrationStarted: {
            /**
             * Format: int64
             * @description The registration may be finished until then.
             */
            expires: number;
            /** @description The least that this app's policy asks for. A client may spend more, and says so with the record. */
            key_stretching: components["schemas"]["KeyStretching"];
            /** @description The fewest characters that this app's policy asks for. The server can not count them. */
            min_length: number;
            /** @description Opaque; send it back with the record. It can be used once. */
            registration: string;
            /**
             * Format: byte
             * @description RegistrationResponse: 64 bytes.
             */
            response: string;
            /**
             * Format: byte
             * @description 32 bytes, for a client that seals secrets under the export key: the device identifier of the PIN will be the
             *     SHA-256 over `custodyd/opaque-pin-device-id/v1`, this salt, memory_kib, passes, lanes (4 bytes each, big endian)
             *     and the record, each of the six with its length before it (4 bytes, big endian); in base64url.
             */
            salt: string;
        };
        PasskeyOptions: {
            /**
             * Format: uuid
             * @description With it, and from a bound device, the options list this account's passkeys.
             */
            account?: string | null;
        };
        PasskeySession: {
            bind_device?: components["schemas"]["BindDevice"] | null;
            ceremony: string;
            /** @description `AuthenticationResponseJSON` (WebAuthn Level 3), without `prf.results`. */
            credential: Record<string, never>;
            release?: string[];
        };
        PasskeyView: {
            /** Format: int64 */
            added: number;
            binding: string;
            /** Format: int64 */
            confirmed: number;
            device_id: string;
            expired: boolean;
            /**
             * Format: int64
             * @description It works until then unless it is used or confirmed; in the past if it has expired.
             */
            expires: number;
            /** Format: int64 */
            last_used: number;
            name?: string | null;
        };
        /** @description The second step of a session that began with a code. */
        PinAfterCode: {
            bind_device?: components["schemas"]["BindDevice"] | null;
            /** Format: password */
            pin: string;
            release?: string[];
        };
        PinBound: {
            pin: components["schemas"]["Bound"];
            /** @description Replaces the session that asked, which ends where the old PIN opened it. */
            session: components["schemas"]["SessionToken"];
        };
        /**
         * @description By what a PIN is checked: whichever way it was set.
         * @enum {string}
         */
        PinCheckedBy: "argon2id" | "opaque";
        PinSession: {
            /** Format: uuid */
            account: string;
            /** Format: password */
            pin: string;
            /** @description Names of the secrets to return with the session, in the same commit. */
            release?: string[];
        };
        /** @description Attempts are told to a bound device only; to others these three are null. */
        PinView: {
            /**
             * Format: int32
             * @description Attempts that may be made now.
             */
            attempts_left?: number | null;
            binding: string;
            checked_by: components["schemas"]["PinCheckedBy"];
            device_id: string;
            /** @description No attempt is left until another factor resets the PIN's budget. */
            exhausted?: boolean | null;
            /** Format: int64 */
            set: number;
            /**
             * Format: int64
             * @description The next attempt may be made then.
             */
            wait_until?: number | null;
        };
        /** @description `application/problem+json` (RFC 9457) with a stable `code`. */
        Problem: {
            /** @description Stable; branch on this. */
            code: string;
            detail: string;
            /** Format: int32 */
            status: number;
            title: string;
            /** @description `urn:custodyd:problem:<code>` */
            type: string;
        } & {
            [key: string]: unknown;
        };
        /** @description An event as its owner reads it, with its log entry. */
        ProvenEvent: {
            /**
             * Format: int64
             * @description Seconds since the Unix epoch.
             */
            at: number;
            detail?: string | null;
            device_id?: string | null;
            factor?: string | null;
            kind: components["schemas"]["EventKind"];
            log: components["schemas"]["LogEntry"];
            /**
             * Format: int64
             * @description Counts the account's events from 1, without gaps.
             */
            number: number;
            /**
             * Format: int64
             * @description Log entry of the event before this one.
             */
            previous?: number | null;
        };
        RecoveryCodeSession: {
            /** Format: uuid */
            account: string;
            bind_device?: components["schemas"]["BindDevice"] | null;
            /**
             * Format: byte
             * @description The auth part of one code.
             */
            code: string;
            release?: string[];
        };
        RecoveryCodesBound: {
            recovery_codes: components["schemas"]["Bound"];
            /** @description Replaces the session that asked, which ends where a code of the set before opened it. */
            session: components["schemas"]["SessionToken"];
        };
        RecoveryCodesView: {
            /** Format: int64 */
            added: number;
            binding: string;
            device_id: string;
            /** @description Codes that were not used. */
            left: number;
        };
        /** @description WebAuthn Level 3, section 5.11.1. */
        RelatedOrigins: {
            origins: string[];
        };
        RemoveAddress: {
            id: string;
        };
        /** @description What comes with the removal of a factor. */
        RemoveFactor: {
            /**
             * @description Secrets rewrapped for the factors that stay, stored in the same commit. Slots of the factor that goes are
             *     dropped from all others.
             */
            secrets?: {
                [key: string]: components["schemas"]["Rewrapped"];
            };
        };
        RemovedDeviceView: {
            device_id: string;
            /**
             * Format: int64
             * @description When the mark goes.
             */
            expires: number;
        };
        /** @description Which account is meant: give `account` or `alias`. */
        RequestCode: {
            /** Format: uuid */
            account?: string | null;
            /** @description An e-mail address or a telephone number. */
            alias?: string | null;
            /**
             * @description `email` or `sms`, where the account may have both. Without it, and without a contact as
             *     the alias, the code goes to the contact that was added first.
             */
            channel?: string | null;
        };
        /** @description A secret's slots, or all of it, given together with a change of factors. One of `slots` and `content`. */
        Rewrapped: {
            content?: components["schemas"]["SecretContent"] | null;
            /**
             * Format: int64
             * @description The version that it replaces, as `If-Match` would say it; absent to create.
             */
            if_version?: number | null;
            /** @description All slots of the secret as they shall be; its sealed content and its server slot stay as they are. */
            slots?: components["schemas"]["SecretSlot"][] | null;
        };
        /**
         * @description What a session may be used for.
         * @enum {string}
         */
        Scope: "read" | "full" | "pin-only";
        Secret: {
            /** Format: byte */
            sealed?: string | null;
            /** Format: byte */
            server_slot?: string | null;
            /** @description It has a server slot, which the policy does not let out. */
            server_slot_withheld: boolean;
            slots: components["schemas"]["SecretSlot"][];
            /** Format: int64 */
            updated: number;
            /**
             * Format: int64
             * @description Grows with every change and is never used twice; the ETag is this number in quotes.
             */
            version: number;
        };
        SecretContent: {
            /**
             * Format: byte
             * @description The content, sealed by the client under a key that the slots hold. Without it they hold the content itself.
             */
            sealed?: string | null;
            /**
             * Format: byte
             * @description What opens the secret (the key of `sealed`, or the content where there is none), for the daemon to seal in
             *     the token. Policy may forbid it.
             */
            server_slot?: string | null;
            /** @description What opens the secret end to end, one for each factor that can. */
            slots?: components["schemas"]["SecretSlot"][];
        };
        SecretEntry: {
            name: string;
            /** @description Whether the daemon can open it. */
            server_slot: boolean;
            /** Format: int64 */
            updated: number;
            /** Format: int64 */
            version: number;
        };
        SecretList: {
            secrets: components["schemas"]["SecretEntry"][];
        };
        SecretSlot: {
            /** Format: byte */
            ciphertext: string;
            /**
             * @description The factor whose key opens the slot. `prf`, `opaque`: device identifier of the passkey, of the PIN.
             *     `recovery-code`: SHA-256 over `custodyd/recovery-code-slot-id/v1` and the code's auth part, each with its
             *     length before it (4 bytes, big endian), in base64url. `secret`: the name of another secret of the account.
             */
            credential: string;
            type: components["schemas"]["SlotType"];
        };
        SecretWritten: {
            /** Format: int64 */
            version: number;
        };
        /**
         * @description What an app's policy says of server slots.
         * @enum {string}
         */
        ServerSlots: "allowed" | "ending" | "forbidden";
        SessionStarted: {
            /** Format: uuid */
            account: string;
            /**
             * @description Device identifier of the passkey, PIN, contact, authenticator app or set of codes that opened the session; absent where
             *     the device key did.
             */
            credential?: string | null;
            /** @description Whether this device is bound to the account. */
            device_bound: boolean;
            /** @description RFC 7638 thumbprint of the device key. */
            device_id: string;
            log?: components["schemas"]["LogReceipt"] | null;
            secrets: {
                [key: string]: components["schemas"]["Secret"];
            };
            /** @description What this app's policy says of server slots. */
            server_slots: components["schemas"]["ServerSlots"];
            session: components["schemas"]["SessionToken"];
        };
        SessionToken: {
            /**
             * Format: int64
             * @description The session ends here in any case.
             */
            absolute_until: number;
            factor: string;
            /**
             * Format: int64
             * @description Until then the session may add, change and remove factors.
             */
            fresh_until: number;
            /**
             * Format: int64
             * @description The session ends here unless it is refreshed.
             */
            idle_until: number;
            scope: components["schemas"]["Scope"];
            /** @description Send it as `Authorization: DPoP <token>`, each time with a fresh DPoP proof. */
            token: string;
        };
        /** @description An address: give `email` or `phone`. */
        SetAddress: {
            /** Format: email */
            email?: string | null;
            /** @description In its international form: `+` and 8 to 15 digits. */
            phone?: string | null;
            /** @description Identifier of the address that this one takes the place of, once it is confirmed. */
            replaces?: string | null;
        };
        SetPin: {
            /** Format: password */
            pin: string;
            /** @description Secrets rewrapped for the new factor, stored in the same commit. */
            secrets?: {
                [key: string]: components["schemas"]["Rewrapped"];
            };
        };
        SetRecoveryCodes: {
            /**
             * @description The auth parts of ten codes, 32 bytes each, in the order of the owner's list. A code has
             *     128 random bits; its auth part is HKDF-SHA-256 of it. The code itself is never sent.
             */
            codes: string[];
            /** @description Secrets rewrapped for the new set, stored in the same commit. */
            secrets?: {
                [key: string]: components["schemas"]["Rewrapped"];
            };
        };
        /** @enum {string} */
        SlotType: "prf" | "opaque" | "recovery-code" | "secret";
        StartOpaqueAfterCode: {
            /**
             * Format: byte
             * @description KE1 (RFC 9807, section 6.1): 96 bytes.
             */
            ke1: string;
        };
        StartOpaqueRegistration: {
            /**
             * Format: byte
             * @description RegistrationRequest (RFC 9807, section 5.1): 32 bytes.
             */
            request: string;
        };
        StartOpaqueSession: {
            /** Format: uuid */
            account: string;
            /**
             * Format: byte
             * @description KE1 (RFC 9807, section 6.1): 96 bytes.
             */
            ke1: string;
        };
        TotpBound: {
            /** @description Replaces the session that asked, which ends where the app before opened it. */
            session: components["schemas"]["SessionToken"];
            totp: components["schemas"]["Bound"];
        };
        /** @description Shown once and never again: it contains the secret. */
        TotpEnrolment: {
            /**
             * Format: int64
             * @description Confirm it before this.
             */
            expires: number;
            /** @description For a link, or to be typed: `otpauth://totp/...`. */
            otpauth: string;
            /**
             * Format: byte
             * @description The same as a PNG file.
             */
            png: string;
            /** @description The same as a QR code, to be placed in a page. */
            svg: string;
            /** @description Not in use until a code confirms it. */
            totp: components["schemas"]["Bound"];
        };
        TotpSession: {
            /** Format: uuid */
            account: string;
            /** Format: password */
            code: string;
            /** @description Names of the secrets to return with the session, in the same commit. */
            release?: string[];
        };
        /** @description Attempts are told to a bound device only; to others these three are null. */
        TotpView: {
            /** Format: int64 */
            added: number;
            /** Format: int32 */
            attempts_left?: number | null;
            binding: string;
            device_id: string;
            exhausted?: boolean | null;
            /** Format: int64 */
            wait_until?: number | null;
        };
        /** @description A change that a weaker factor asked for and that waits: any session may cancel it. */
        WaitingChange: {
            change: string;
            /** @description Device identifier of the device that asked. */
            device_id: string;
            /**
             * Format: int64
             * @description From then on the device may have it by asking again.
             */
            due: number;
            /**
             * Format: int64
             * @description Forgotten then.
             */
            expires: number;
            factor: string;
            /** Format: int64 */
            requested: number;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export interface operations {
    get_well_known_jwks_json: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/jwk-set+json": Record<string, never>;
                };
            };
        };
    };
    get_well_known_webauthn: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RelatedOrigins"];
                };
            };
        };
    };
    get_log_checkpoint: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
        };
    };
    get_log_checkpoint_witnessed: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "text/plain": string;
                };
            };
        };
    };
    get_log_tile_entries_index: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description index of the bundle, and its width where it is partial */
                index: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": number[];
                };
            };
        };
    };
    get_log_tile_level_index: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description 0 to 63 */
                level: string;
                /** @description index of the tile, and its width where it is partial */
                index: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/octet-stream": number[];
                };
            };
        };
    };
    get_v1_account: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AccountView"];
                };
            };
        };
    };
    delete_v1_account: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["EraseAccount"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    put_v1_account_alias: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetAddress"];
            };
        };
        responses: {
            /** @description as it was asked for */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AddressClaimed"];
                };
            };
        };
    };
    delete_v1_account_alias: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RemoveAddress"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_alias_confirm: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ConfirmAddress"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_app_keys: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AddAppKey"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Bound"];
                };
            };
        };
    };
    delete_v1_account_app_keys_device_id: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description RFC 7638 thumbprint of the app key */
                device_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    put_v1_account_contact: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetAddress"];
            };
        };
        responses: {
            /** @description as it was asked for */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AddressClaimed"];
                };
            };
        };
    };
    delete_v1_account_contact: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RemoveAddress"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_contact_confirm: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ConfirmAddress"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_devices: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["BindDevice"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["DeviceBound"];
                };
            };
        };
    };
    delete_v1_account_devices_device_id: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description RFC 7638 thumbprint of its device key */
                device_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    get_v1_account_events: {
        parameters: {
            query?: {
                /** @description `next` of the page before. */
                from?: string;
                /** @description Size of a checkpoint that was kept: the answer shows that the log continues it. */
                since?: number;
            };
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["EventPage"];
                };
            };
        };
    };
    get_v1_account_export: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Export"];
                };
            };
        };
    };
    post_v1_account_offline_report: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["OfflineReport"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_opaque_finish: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FinishOpaqueRegistration"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PinBound"];
                };
            };
        };
    };
    post_v1_account_opaque_start: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StartOpaqueRegistration"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OpaqueRegistrationStarted"];
                };
            };
        };
    };
    post_v1_account_passkeys: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["AddPasskey"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Bound"];
                };
            };
        };
    };
    post_v1_account_passkeys_options: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["ManagePasskeyOptions"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CeremonyOptions"];
                };
            };
        };
    };
    delete_v1_account_passkeys_device_id: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description device identifier of the passkey */
                device_id: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["RemoveFactor"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_passkeys_device_id_confirm: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description device identifier of the passkey */
                device_id: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ConfirmPasskey"];
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    put_v1_account_pin: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetPin"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["PinBound"];
                };
            };
        };
    };
    delete_v1_account_pin: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["RemoveFactor"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    delete_v1_account_recovery: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_recovery_codes: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SetRecoveryCodes"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["RecoveryCodesBound"];
                };
            };
        };
    };
    delete_v1_account_recovery_codes: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["RemoveFactor"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    get_v1_account_secrets: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SecretList"];
                };
            };
        };
    };
    get_v1_account_secrets_name: {
        parameters: {
            query?: never;
            header?: never;
            path: {
                /** @description name of the secret */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["Secret"];
                };
            };
        };
    };
    put_v1_account_secrets_name: {
        parameters: {
            query?: never;
            header?: {
                /** @description ETag of the version to replace */
                "If-Match"?: string | null;
                /** @description * */
                "If-None-Match"?: string | null;
            };
            path: {
                /** @description 1 to 64 lower-case letters, digits, hyphens */
                name: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["SecretContent"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    ETag?: string;
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SecretWritten"];
                };
            };
        };
    };
    delete_v1_account_secrets_name: {
        parameters: {
            query?: never;
            header: {
                /** @description ETag of the version to delete */
                "If-Match": string;
            };
            path: {
                /** @description name of the secret */
                name: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_totp: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["EnrolTotp"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TotpEnrolment"];
                };
            };
        };
    };
    delete_v1_account_totp: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_account_totp_confirm: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["ConfirmTotp"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["TotpBound"];
                };
            };
        };
    };
    post_v1_apps_app_accounts: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
                /** @description 1 to 128 characters */
                "Idempotency-Key"?: string | null;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CreateAccount"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["AccountCreated"];
                };
            };
        };
    };
    get_v1_apps_app_bindings_device_id: {
        parameters: {
            query: {
                /** @description The account, as `sub` of the binding names it. */
                account: string;
            };
            header?: never;
            path: {
                /** @description app identifier of the policy file */
                app: string;
                /** @description device identifier of the key */
                device_id: string;
            };
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["LookedUp"];
                };
            };
        };
    };
    post_v1_apps_app_otp: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RequestCode"];
            };
        };
        responses: {
            /** @description as it was asked for */
            202: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CodeRequested"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_device: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["DeviceSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_opaque_finish: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FinishOpaqueSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_opaque_start: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StartOpaqueSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OpaqueLoginStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_otp: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["CodeSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_passkey: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PasskeySession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_passkey_options: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody?: {
            content: {
                "application/json": components["schemas"]["PasskeyOptions"] | null;
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["CeremonyOptions"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_pin: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PinSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_recovery_code: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["RecoveryCodeSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_apps_app_sessions_totp: {
        parameters: {
            query?: never;
            header: {
                /** @description RFC 9449 proof with nonce and body_sha256 */
                DPoP: string;
            };
            path: {
                /** @description app identifier of the policy file */
                app: string;
            };
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["TotpSession"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    delete_v1_session: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
    post_v1_session_opaque_finish: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["FinishOpaqueAfterCode"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_session_opaque_start: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["StartOpaqueAfterCode"];
            };
        };
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["OpaqueLoginStarted"];
                };
            };
        };
    };
    post_v1_session_pin: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody: {
            content: {
                "application/json": components["schemas"]["PinAfterCode"];
            };
        };
        responses: {
            /** @description as it was asked for */
            201: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionStarted"];
                };
            };
        };
    };
    post_v1_session_refresh: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            200: {
                headers: {
                    [name: string]: unknown;
                };
                content: {
                    "application/json": components["schemas"]["SessionToken"];
                };
            };
        };
    };
    delete_v1_sessions: {
        parameters: {
            query?: never;
            header?: never;
            path?: never;
            cookie?: never;
        };
        requestBody?: never;
        responses: {
            /** @description as it was asked for */
            204: {
                headers: {
                    [name: string]: unknown;
                };
                content?: never;
            };
        };
    };
}
