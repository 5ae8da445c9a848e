use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The stable word for what went wrong, such as RUN_NOT_FOUND; empty if the server gave none, as
/// for a lost connection.
pub fn reason(status: &Status) -> String {
    let info = status.get_details_error_info();
    info.map(|info| info.reason).unwrap_or_default()
}

/// Tells people of an error.
pub fn describe(status: Status) -> String {
    let code = status.code();
    format!("{code:?} {}: {}", reason(&status), status.message())
}

/// Whether trying again, with the same request or from the same cursor, fails again. Everything
/// else, a lost connection above all, is worth another try.
pub fn is_final(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}
