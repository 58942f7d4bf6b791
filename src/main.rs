//! Hands the arguments to `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let parts = watchpost::cli::Parts {
        serve: watchpost::app::serve,
        inspect: watchpost::app::inspect,
        data: watchpost::cli::DataParts {
            verify: watchpost::app::data::verify,
            repair: watchpost::app::data::repair,
            export: watchpost::app::data::export,
            backup: watchpost::app::data::backup,
            is_in_use: watchpost::app::data::is_in_use,
        },
    };
    watchpost::cli::run(std::env::args_os(), &parts)
}
