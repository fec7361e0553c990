//! Where masters of a service are asked and told, and who may.

use ph_config::{Allow, ControlTarget, Settings};
use ph_core::{AccountError, Allowed, ControlSocket};

use super::Service;
use crate::exit::Exit;
use crate::failure::Failure;

/// The place of the socket; none if it is off.
pub(crate) fn place(settings: &Settings) -> Option<ControlSocket> {
    let path = match &settings.control_socket {
        ControlTarget::Off => return None,
        ControlTarget::BesidePidfile => None,
        ControlTarget::File(path) => Some(path.clone()),
    };
    Some(ControlSocket { path, allow: Vec::new() })
}

/// The same with those who may ask.
pub(super) fn socket(service: &Service) -> Result<Option<ControlSocket>, Failure> {
    let Some(socket) = place(&service.settings) else { return Ok(None) };
    let allow = service.settings.control_allow.iter().map(|allow| match allow {
        Allow::User(user) => Allowed::user(&user.to_string()),
        Allow::Group(group) => Allowed::group(&group.to_string()),
    });
    let allow = allow.collect::<Result<_, _>>().map_err(|error| not_found(service, &error))?;
    Ok(Some(ControlSocket { allow, ..socket }))
}

fn not_found(service: &Service, error: &AccountError) -> Failure {
    let failure = service.failure(Exit::Config, &error.to_string(), "control_allow");
    match error {
        AccountError::NoGroup(name) => failure.remedy(format!("getent group {name}")),
        AccountError::NoUser(name) | AccountError::Unanswered { name, .. } => {
            failure.remedy(format!("getent passwd {name}"))
        }
        AccountError::NoEntry(uid) => failure.remedy(format!("getent passwd {uid}")),
    }
}
