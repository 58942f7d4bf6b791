//! Hands the arguments to `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let parts = watchpost::cli::Parts {
        serve: watchpost::app::serve,
        inspect: watchpost::app::inspect,
    };
    watchpost::cli::run(std::env::args_os(), &parts)
}
