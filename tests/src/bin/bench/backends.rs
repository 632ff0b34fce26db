//! Recoveries by kind of token: the same load on a daemon with SoftHSM2, kryoptic, and a TPM in both modes.
//!
//! Each with a daemon and accounts of its own, one after the other in the same run, all with bounded anchoring, which a
//! TPM demands. The TPM is swtpm, a program on the same cores whose CPU is not the server's; so a rate for a CPU second
//! says what the daemon takes, a rate what the token allows. A chip is slower by far: see docs/BENCH.md.

use std::path::{Path, PathBuf};
use std::time::Duration;

use custodyd_hsm::backend::tpm::Mode;
use custodyd_tests::kryoptic::{self, KryopticToken};
use custodyd_tests::token::{LABEL, repository};
use custodyd_tests::tpm::SwTpm;
use custodyd_tests::{Setup, TestApp};
use tokio::runtime::Runtime;

use crate::cpu::{self, Sample};
use crate::load::Crowd;
use crate::report::Figure;

const LOADED: Duration = Duration::from_secs(4);
/// Names this part alone, and its half that measures.
pub(crate) const ALONE: &str = "backends";
pub(crate) const BACKENDS: &str = "measure-backends";
const CONFIGURATION: &str = "KRYOPTIC_CONF";

/// A kryoptic token for the half of this program that measures; none where the module was not built.
pub(crate) fn kryoptic() -> Option<KryopticToken> {
    let module = repository().join("target/tools/lib/libkryoptic_pkcs11.so");
    module.is_file().then(KryopticToken::fresh)
}

fn measured(runtime: &Runtime, section: Option<String>) -> Sample {
    let runtime_directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let mut app = runtime.block_on(TestApp::with(Setup {
        token: section,
        config: format!(
            "[ledger]\nanchor = \"bounded\"\nanchor_interval = \"10s\"\nruntime_directory = \"{}\"\n",
            runtime_directory.path().display()
        ),
        ..Setup::default()
    }));
    let server = cpu::child("custodyd");
    let load = Crowd::of_a_few(&app).passkeys(server, LOADED);
    assert!(app.stop(), "{}", app.log());
    load.sample
}

fn on_a_tpm(runtime: &Runtime, mode: Mode) -> Sample {
    let tpm = SwTpm::fresh(mode);
    tpm.power_on();
    let section = format!(
        "kind = \"tpm\"\ntcti = \"{}\"\nstorage_key = \"{}\"\nstate_directory = \"{}\"\npin_file = \"{}\"\n\
         per_operation = {}\nnv_writes_per_day = 1000000",
        tpm.tcti(),
        tpm.storage_key(),
        tpm.anchors().display(),
        tpm.secret_file().display(),
        mode == Mode::PerOperation,
    );
    measured(runtime, Some(section))
}

fn on_kryoptic(runtime: &Runtime, configuration: &Path) -> Sample {
    let token = KryopticToken::attach(configuration.parent().unwrap());
    let section = format!(
        "module = \"{}\"\nlabel = \"{LABEL}\"\npin_file = \"{}\"",
        kryoptic::module().display(),
        token.user_pin_file().display()
    );
    measured(runtime, Some(section))
}

/// No other daemon may run meanwhile.
pub(crate) fn figures(runtime: &Runtime) -> Vec<Figure> {
    println!("recoveries by kind of token ...");
    let base = measured(runtime, None);
    let mut figures = vec![
        Figure::new(
            "backend_softhsm2_per_cpu_second",
            base.per_cpu_second(),
            "1/CPU-s",
            "passkey recoveries, of the server",
        ),
        Figure::new(
            "backend_softhsm2_per_second",
            base.per_second(),
            "1/s",
            "16 clients on the same cores",
        ),
    ];
    let mut add = |[of_cpu, of_time]: [&'static str; 2], sample: &Sample| {
        let (cpu, time) = (sample.per_cpu_second(), sample.per_second());
        figures.push(
            Figure::new(of_cpu, cpu, "1/CPU-s", "of the server, without swtpm").beside(
                "backend_softhsm2_per_cpu_second",
                cpu / base.per_cpu_second(),
            ),
        );
        figures.push(
            Figure::new(of_time, time, "1/s", "16 clients on the same cores")
                .beside("backend_softhsm2_per_second", time / base.per_second()),
        );
    };
    let names = ["backend_tpm_per_cpu_second", "backend_tpm_per_second"];
    add(names, &on_a_tpm(runtime, Mode::PerStart));
    let names = [
        "backend_tpm_per_operation_per_cpu_second",
        "backend_tpm_per_operation_per_second",
    ];
    add(names, &on_a_tpm(runtime, Mode::PerOperation));
    match std::env::var_os(CONFIGURATION).map(PathBuf::from) {
        Some(configuration) => {
            let names = [
                "backend_kryoptic_per_cpu_second",
                "backend_kryoptic_per_second",
            ];
            add(names, &on_kryoptic(runtime, &configuration));
        }
        None => println!("kryoptic is left out: scripts/ensure-tools builds its module"),
    }
    figures
}
