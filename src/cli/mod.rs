//! The command line: one file per command. Exit codes: 0 done, 1 found something wrong, 2 could not run, 74 the disk failed.

mod answers;
mod check;
mod check_fix;
mod control;
mod control_changes;
mod coverage;
mod coverage_count;
mod coverage_guide;
mod daemon;
mod explain;
mod explain_element;
mod explain_field;
mod explain_journal;
mod explain_json;
mod explain_message;
mod explain_rest;
mod explain_subject;
mod explain_text;
mod explain_why;
mod fhir;
mod fhir_target;
mod import;
mod journal;
mod journal_change;
mod journal_dead;
mod journal_edit;
mod journal_filter;
mod journal_show;
mod jwks;
mod lsp;
mod map;
mod message_file;
mod paint;
mod patient_index;
mod process;
mod reload;
mod route_choice;
mod route_set;
mod schema;
mod send;
mod send_client;
mod send_load;
mod serve;
mod server_watch;
mod servers;
mod site_change;
mod site_file;
mod site_memory;
mod test;
mod test_changes;
mod test_compare;
mod test_coverage;
mod test_fixture;
mod test_history;
mod test_messages;
mod test_report;
mod test_run;
mod try_it;
mod unmapped;
mod unmapped_row;
mod watch_files;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0.
    Done,
    /// 1: it ran, and what it looked at is not well.
    Found,
    /// 2: it could not run.
    CouldNot,
    /// 74 (EX_IOERR): the journal's disk failed, and nothing more could be promised.
    DiskFailed,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Found => Self::from(1),
            Exit::CouldNot => Self::from(2),
            Exit::DiskFailed => Self::from(74),
        }
    }
}

#[derive(Parser)]
#[command(name = "kiln", version, about = "Raw HL7 v2 goes in, fired FHIR comes out.", arg_required_else_help = true, max_term_width = 110)]
#[command(after_help = "New here? Run `kiln try`: it needs nothing and shows everything.\nExit codes: 0 done, 1 found something wrong, 2 could not run.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Try(try_it::Args),
    Serve(serve::Args),
    Reload(reload::Args),
    Map(map::Args),
    Check(check::Args),
    Send(send::Args),
    Import(import::Args),
    Journal(journal::Args),
    Unmapped(unmapped::Args),
    Explain(explain::Args),
    Schema(schema::Args),
    Test(test::Args),
    Lsp(lsp::Args),
    Coverage(coverage::Args),
    Fhir(fhir::Args),
    Jwks(jwks::Args),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    process::quiet_panics();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { 2 } else { 0 };
            // Nothing can be done about a standard error that is closed.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cli.command {
        Command::Try(args) => try_it::run(&args).into(),
        Command::Serve(args) => serve::run(&args).into(),
        Command::Reload(args) => reload::run(&args).into(),
        Command::Map(args) => map::run(&args).into(),
        Command::Check(args) => check::run(&args).into(),
        Command::Send(args) => send::run(&args).into(),
        Command::Import(args) => import::run(&args).into(),
        Command::Journal(args) => journal::run(&args).into(),
        Command::Unmapped(args) => unmapped::run(&args).into(),
        Command::Explain(args) => explain::run(&args).into(),
        Command::Schema(args) => schema::run(&args).into(),
        Command::Test(args) => test::run(&args).into(),
        Command::Lsp(args) => lsp::run(&args).into(),
        Command::Coverage(args) => coverage::run(&args).into(),
        Command::Fhir(args) => fhir::run(&args).into(),
        Command::Jwks(args) => jwks::run(&args).into(),
    }
}
