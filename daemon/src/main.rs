//! The one binary: hands over to the command line and ends with its exit code.

/// A request makes some hundreds of small allocations; this allocator takes half the time of the
/// system's for them. Its hardened form costs as much as the system's and was left out: memory
/// safety is the compiler's work here, and what is secret wipes itself.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    custodyd::ending::of(custodyd::cli::run())
}
