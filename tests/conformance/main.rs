//! One suite for every kind of token. A further backend adds a folder with its
//! [`rig::Rig`] (and [`rig::Store`]) and two lines below; the suite itself never
//! changes for it.
//!
//! Each case runs in a process of its own, started by the test of the same
//! name: PKCS#11 is initialized once per process, and SoftHSM2 takes its
//! configuration from the environment. So the cases are safe under threads
//! (`cargo test`) as well as under one process per test (nextest).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may stop at once"
)]

mod hanging;
mod kryoptic;
mod own_process;
mod rig;
mod softhsm;
mod software;
mod suite;
mod tool;
mod tpm;
mod wycheproof;

suite::run_over!(on_softhsm, crate::softhsm::SoftHsm);
suite::run_labels_over!(labels_on_softhsm, crate::softhsm::SoftHsm);
suite::run_anchors_over!(anchors_on_softhsm, crate::softhsm::SoftHsm);
suite::cases! { ed25519_on_softhsm, crate::softhsm::SoftHsm,
    an_ed25519_key_is_made_where_it_is_asked_for,
    a_token_that_serves_a_realm_gets_its_ed25519_key_by_a_rotation,
}
// Built without Ed25519, it stands for every token that has none.
suite::cases! { ed25519_on_kryoptic, crate::kryoptic::Kryoptic,
    an_ed25519_key_that_the_token_can_not_make_is_refused,
}
suite::run_over!(on_kryoptic, crate::kryoptic::Kryoptic);
suite::run_labels_over!(labels_on_kryoptic, crate::kryoptic::Kryoptic);
suite::run_anchors_over!(anchors_on_kryoptic, crate::kryoptic::Kryoptic);
suite::cases_of!(
    crate::wycheproof,
    wycheproof_on_softhsm,
    crate::softhsm::SoftHsm,
    hmac_sha256_in_the_token,
    ecdsa_p256_in_the_token,
);
suite::cases_of!(
    crate::wycheproof,
    wycheproof_on_kryoptic,
    crate::kryoptic::Kryoptic,
    hmac_sha256_in_the_token,
    ecdsa_p256_in_the_token,
);
suite::cases_of!(
    crate::tpm::wycheproof,
    wycheproof_on_tpm,
    crate::tpm::PerStart,
    hmac_sha256_in_the_tpm,
    ecdsa_p256_in_the_tpm,
);
suite::run_anchors_over!(anchors_in_memory, crate::software::Software);
suite::run_over!(on_tpm, crate::tpm::PerStart);
suite::run_anchors_over!(anchors_on_tpm, crate::tpm::PerStart);
suite::run_over!(on_tpm_per_operation, crate::tpm::PerOperation);
suite::cases_of!(
    crate::tpm::cases,
    tpm_alone,
    crate::tpm::PerStart,
    a_cleared_tpm_is_refused_with_the_next_step,
    an_ed25519_key_is_refused_with_a_sentence,
    only_the_pinned_storage_key_is_accepted,
    the_tpms_state_put_back_is_noticed,
    records_put_back_or_removed_are_refused,
    a_crash_between_record_and_extension_leaves_the_old_one,
    a_mac_key_that_is_destroyed_takes_its_anchors_along,
    an_index_made_anew_is_refused,
    an_index_of_other_attributes_is_refused,
    another_program_that_extends_is_noticed,
    a_spent_wear_budget_is_told_and_outlives_a_restart,
    the_mode_is_the_one_that_the_keys_were_made_with,
    a_key_at_the_handle_of_another_does_not_answer,
    nothing_secret_passes_in_clear,
    what_the_tpm_puts_off_is_asked_again_and_lockout_is_not,
    an_extension_whose_answer_is_lost_is_found,
    the_owners_password_is_for_provisioning_alone,
    a_wrong_secret_is_told_as_one_by_provisioning_too,
);
suite::cases_of!(
    crate::tpm::hanging,
    tpm_hanging,
    crate::tpm::PerStart,
    a_command_that_hangs_leaves_the_others_a_tpm_that_is_well,
    an_extension_that_hangs_is_not_overtaken,
    a_key_that_is_being_made_is_not_overtaken,
    a_slow_tpm_is_waited_for,
    a_tpm_that_hangs_altogether_is_back_when_it_answers,
);
suite::cases_of!(
    crate::softhsm::importing,
    softhsm_importing,
    crate::softhsm::SoftHsm,
    versions_of_an_escrow_come_in_beside_others,
);
suite::cases_of!(
    crate::softhsm::faults,
    module_faults,
    crate::softhsm::faults::Faulty,
    a_call_that_hangs_leaves_the_others_a_token_that_is_well,
    a_token_that_went_away_beneath_a_hung_call_is_back_after_it,
    a_login_that_hangs_is_told_and_not_tried_beside,
    a_start_does_not_wait_for_a_login_that_hangs,
    a_recovery_that_hangs_elsewhere_is_tried_beside,
    a_recovery_that_hangs_twice_is_told_until_it_returns,
    a_recovery_that_panics_is_begun_anew,
    who_wants_to_be_alone_does_not_wait_for_ever,
    anchors_that_were_away_for_a_moment_are_found_again,
    anchors_of_one_of_several_realms_are_found_again,
    without_room_for_sessions_the_open_ones_serve,
    a_wrong_pin_told_by_any_code_is_not_presented_again,
    a_pin_that_is_unclear_in_a_recovery_rests,
    a_pin_that_is_locked_or_nearly_is_not_presented,
);
suite::cases_of!(
    crate::tpm::importing,
    tpm_importing,
    crate::tpm::PerStart,
    keys_of_an_escrow_come_in_concealed_and_stay,
);
suite::cases_of!(
    crate::tpm::booted,
    tpm_booted,
    crate::tpm::PerStart,
    only_the_approved_boot_uses_the_keys,
    the_secret_alone_opens_nothing_in_another_boot,
    keys_are_bound_to_nobody_elses_recovery_key,
    what_was_approved_before_is_not_any_more,
    an_announced_boot_is_approved_beside_the_present_one,
    any_boot_is_approved_until_the_next_reseal,
    an_index_made_anew_approves_nothing,
    keys_are_bound_when_they_are_made_or_never,
    keys_of_an_escrow_are_bound_and_do_not_come_out,
);
suite::cases_of!(
    crate::tpm::booted,
    tpm_booted_per_operation,
    crate::tpm::PerOperation,
    only_the_approved_boot_computes_in_the_tpm,
);
suite::cases_of!(
    crate::tpm::anchored,
    tpm_anchored,
    crate::tpm::PerStart,
    anchors_are_written_in_the_approved_boot_alone,
    an_index_that_is_not_bound_is_refused,
    registers_are_looked_at_when_a_key_is_used,
    evidence_is_made_in_the_approved_boot_alone,
    what_root_leaves_is_the_daemons,
);
suite::cases_of!(
    crate::tpm::evidence,
    tpm_evidence,
    crate::tpm::PerStart,
    evidence_is_the_tpms_word_and_nothing_else,
    the_attestation_key_stays_and_is_of_its_tpm,
);
