//! Makes the keys of a test token: `provision-token MODULE LABEL PIN-FILE`.
//!
//! Run by `custodyd_tests::token` with `SOFTHSM2_CONF` set. A program of its
//! own, because SoftHSM2 takes its configuration from the environment of the
//! process and a running test must not change its own.

use std::{env, fs, process::ExitCode};

use custodyd_hsm::{
    Backend, SecretBytes,
    backend::pkcs11::{Options, Pkcs11Backend},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [module, label, pin_file] = arguments.as_slice() else {
        eprintln!("usage: provision-token MODULE LABEL PIN-FILE");
        return ExitCode::from(2);
    };
    match provision(module, label, pin_file) {
        Ok(created) => {
            println!("made {}", created.join(", "));
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("provision-token: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn provision(module: &str, label: &str, pin_file: &str) -> Result<Vec<String>, String> {
    let pin = fs::read(pin_file).map_err(|error| format!("{pin_file}: {error}"))?;
    let options = Options::new(module, label, SecretBytes::from(pin));
    let report = Pkcs11Backend::new(options).provision(false);
    Ok(report.map_err(|error| error.to_string())?.created)
}
