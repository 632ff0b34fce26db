//! The cases, over any backend. What a token must do, what it must refuse, and
//! how it must behave when it goes away.

mod accidents;
mod anchors;
mod keys;
mod operations;
mod pooling;

use std::{sync::Arc, time::Duration};

use custodyd_hsm::{Backend, KeyId, KeyPurpose, Pool, PoolOptions};

pub(crate) use self::{accidents::*, anchors::*, keys::*, operations::*, pooling::*};

pub(crate) const WRAP: KeyId = KeyId {
    purpose: KeyPurpose::Wrap,
    version: 1,
};
pub(crate) const MAC: KeyId = KeyId {
    purpose: KeyPurpose::Mac,
    version: 1,
};
pub(crate) const BIND: KeyId = KeyId {
    purpose: KeyPurpose::Bind,
    version: 1,
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Makes one test per case for a backend.
macro_rules! run_over {
    ($backend:ident, $rig:ty) => {
        $crate::suite::cases! { $backend, $rig,
            keys_are_found_with_sound_attributes,
            provisioning_makes_what_is_missing_and_nothing_else,
            a_missing_key_is_named,
            a_newer_key_is_made_and_an_older_one_destroyed,
            an_extractable_key_is_refused,
            hmac_is_repeatable_and_keyed,
            derivation_is_the_kdf_of_the_standard,
            signatures_verify_on_the_host,
            keys_do_only_what_they_are_for,
            random_bytes_differ,
            records_open_for_their_own_context_only,
            bindings_verify_under_the_published_keys,
            webhook_calls_verify_under_the_published_keys,
            what_was_sealed_opens_after_a_restart,
            many_threads_get_their_own_answers,
            a_wrong_pin_is_presented_once,
            one_backend_per_process,
            a_token_that_goes_away_comes_back_without_a_restart,
            another_token_in_its_place_is_refused,
            a_signing_key_that_is_deleted_beneath_is_missed,
            a_secret_key_that_is_deleted_beneath_is_missed,
            a_hanging_call_meets_its_deadline,
            a_full_queue_is_busy,
            a_panic_in_a_job_costs_no_worker,
            operations_are_counted,
        }
    };
}

/// The cases about labels, for tokens whose objects have some.
macro_rules! run_labels_over {
    ($backend:ident, $rig:ty) => {
        $crate::suite::cases! { $backend, $rig,
            a_doubled_secret_key_is_refused,
            a_doubled_signing_key_is_refused,
            half_a_key_pair_is_refused,
            a_wrong_label_names_what_is_there,
            a_root_that_is_gone_beside_anchors_is_not_made_anew,
            a_survey_shows_the_token_and_presents_no_pin,
        }
    };
}

/// The cases about anchors alone: for every token that keeps some.
macro_rules! run_anchors_over {
    ($backend:ident, $store:ty) => {
        $crate::suite::cases! { $backend, $store,
            anchors_are_made_listed_and_destroyed,
            only_objects_of_our_label_are_listed,
            a_handle_destroys_only_what_was_listed,
            an_anchor_survives_a_restart,
            an_anchor_advances_step_by_step,
            an_anchor_goes_on_from_one_that_stands,
            a_crash_between_create_and_destroy_is_mended,
            two_newest_anchors_are_refused,
            a_forged_anchor_is_refused,
            an_anchor_that_is_gone_is_missed,
            realms_of_one_token_leave_each_other_alone,
            of_two_advances_at_once_one_wins,
            checkpoints_verify_under_the_published_key,
        }
    };
}

macro_rules! cases {
    ($tests:ident, $rig:ty, $($case:ident,)+) => {
        $crate::suite::cases_of! { $crate::suite, $tests, $rig, $($case,)+ }
    };
}

/// Cases of another module than this one, for one kind of token.
macro_rules! cases_of {
    ($of:path, $tests:ident, $rig:ty, $($case:ident,)+) => {
        mod $tests {
            use $of as of;
            $(#[test]
            fn $case() {
                let path = concat!(module_path!(), "::", stringify!($case));
                $crate::own_process::run::<$rig>(path, of::$case);
            })+
        }
    };
}
pub(crate) use {cases, cases_of, run_anchors_over, run_labels_over, run_over};

/// A pool of two threads, with a deadline that a machine which others keep busy does not miss.
fn pool(backend: &Arc<dyn Backend>) -> Pool {
    let options = PoolOptions {
        threads: 2,
        queue: 64,
        deadline: DEADLINE,
    };
    Pool::start(Arc::clone(backend), options).unwrap()
}
