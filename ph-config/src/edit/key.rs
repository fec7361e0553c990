//! What a key means to an edit, whichever way it is spelled.
//!
//! `app.NAME` and `app_NAME` are one key of the application. `environment.NAME` is one variable,
//! and only its exact name is it. Any other key is the same in upper and lower case.

/// The table of an application's own keys.
pub(super) const APP: &str = "app";
/// The table of variables, which is a setting as well.
pub(super) const ENVIRONMENT: &str = "environment";

/// A key as settings, origins and reports know it: in lower case, `app_NAME` also where it was
/// given as `app.NAME`; of `environment.NAME` the name stays as it is.
///
/// ```
/// assert_eq!(ph_config::normalise_key("App.Colour"), "app_colour");
/// assert_eq!(ph_config::normalise_key("Environment.PATH"), "environment.PATH");
/// ```
pub fn normalise_key(key: &str) -> String {
    match sub_key(key) {
        Some((ENVIRONMENT, name)) => format!("{ENVIRONMENT}.{name}"),
        Some((_, name)) => format!("app_{}", name.to_lowercase()),
        None => key.to_lowercase(),
    }
}

/// The table and the name in it that a key with a point, or with `app_`, stands for.
pub(super) fn sub_key(key: &str) -> Option<(&'static str, &str)> {
    let heads = [("environment.", ENVIRONMENT), ("app.", APP), ("app_", APP)];
    heads.into_iter().find_map(|(head, table)| {
        let (start, name) = key.split_at_checked(head.len())?;
        (start.eq_ignore_ascii_case(head) && !name.is_empty()).then_some((table, name))
    })
}

/// The name of the variable, if a normalised key is one.
pub(crate) fn variable(key: &str) -> Option<&str> {
    sub_key(key).filter(|(table, _)| *table == ENVIRONMENT).map(|(_, name)| name)
}

/// The key that a normalised one is part of, as a document has it.
///
/// ```
/// assert_eq!(ph_config::whole_key("environment.PATH"), "environment");
/// assert_eq!(ph_config::whole_key("app_colour"), "app_colour");
/// ```
pub fn whole_key(key: &str) -> &str {
    if variable(key).is_some() { ENVIRONMENT } else { key }
}
