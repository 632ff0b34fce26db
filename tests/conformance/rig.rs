//! What a kind of token must offer to be tested: a fresh token, and the
//! accidents that can befall it.

use std::{any::Any, path::PathBuf, sync::Arc};

use custodyd_hsm::{Backend, KeyId, SecretBytes};

/// What the parent process made for the child that runs a case.
pub(crate) struct Prepared {
    /// Dropped when the case is over.
    pub(crate) keep: Box<dyn Any>,
    /// For the child's environment.
    pub(crate) environment: Vec<(&'static str, PathBuf)>,
}

/// A backend that counts how often it presents a PIN.
pub(crate) type Counted = (Arc<dyn Backend>, Box<dyn Fn() -> u64>);

/// A kind of token that keeps anchors, and what may be done behind its back.
pub(crate) trait Store: Sized {
    /// In the parent: a fresh token with all keys.
    fn prepare() -> Prepared;
    /// In the child: that token.
    fn attach() -> Self;

    /// A backend on the token with the right PIN.
    fn backend(&self) -> Arc<dyn Backend>;

    /// Adds an object where anchors are kept, as another program would.
    fn plant(&self, content: &[u8]);
    /// Removes every object that stands there.
    fn clear(&self);
    /// Adds an object that is almost in that place: other class, label or application.
    fn plant_beside(&self, content: &[u8]);
    /// Whether it says of one anchor that it stands, without a list.
    fn tells_of_one(&self) -> bool {
        true
    }
}

/// A kind of token that is reached from outside, with the accidents of that.
pub(crate) trait Rig: Store {
    /// A backend on the token with a wrong PIN.
    fn backend_with_wrong_pin(&self) -> Counted;
    /// Whether the token is made of files, as its backend must say.
    fn is_software(&self) -> bool;
    /// Objects that are reported of a key pair.
    fn objects_of_a_pair(&self) -> usize;
    /// The attributes that say that a key stays, and their values; the first is the one that
    /// [`Rig::make_extractable`] spoils.
    fn kept(&self) -> [(&'static str, &'static str); 2];

    /// The token goes away beneath a running process.
    fn take_away(&self);
    /// The same token comes back.
    fn bring_back(&self);
    /// In the place of a token that was taken away: same names, same PIN, other keys.
    fn put_impostor(&self);
    /// The impostor goes.
    fn remove_impostor(&self);

    /// Deletes every object of a key.
    fn delete(&self, key: KeyId);
    /// Whether it gives its secret keys out when it is opened, and is not asked for them again before the next start.
    fn gives_secrets_out(&self) -> bool {
        false
    }
    /// Makes a key of this label that can leave the token.
    fn make_extractable(&self, key: KeyId);
}

/// A kind of token whose objects carry labels, so that there may be two of one, or half a pair: those
/// behind PKCS#11 modules.
pub(crate) trait Labelled: Rig {
    /// The module and the user PIN.
    fn module(&self) -> (PathBuf, SecretBytes);
    /// A backend whose token does not exist.
    fn backend_with_wrong_label(&self) -> Arc<dyn Backend>;
    /// Makes a second object of the same label.
    fn duplicate(&self, key: KeyId);
    /// Deletes the public object of a key pair.
    fn delete_public_half(&self, key: KeyId);
}
