//! Services, and their operations.

use std::collections::BTreeSet;

use crate::model::trace::Operation;

/// Takes `service 00 operation 00 kind`.
type Visit<'a> = &'a mut dyn FnMut(&[u8]);

/// Names of all services, sorted. `each` visits all operations, maybe repeatedly.
pub fn services<E>(each: impl FnOnce(Visit<'_>) -> Result<(), E>) -> Result<Vec<String>, E> {
    let mut names = BTreeSet::new();
    each(&mut |stored| {
        if let Some((service, _, _)) = split(stored)
            && !names.contains(service)
        {
            names.insert(service.to_owned());
        }
    })?;
    Ok(names.into_iter().collect())
}

/// Operations of a service, sorted; of one kind if one is given.
pub fn of_service<E>(
    each: impl FnOnce(Visit<'_>) -> Result<(), E>,
    service: &str,
    kind: Option<&str>,
) -> Result<Vec<Operation>, E> {
    let mut found = BTreeSet::new();
    each(&mut |stored| {
        if let Some((of, name, its_kind)) = split(stored)
            && of == service
            && kind.is_none_or(|kind| kind == its_kind)
        {
            found.insert(Operation {
                name: name.to_owned(),
                kind: its_kind.to_owned(),
            });
        }
    })?;
    Ok(found.into_iter().collect())
}

/// Service, operation and kind. The kind is at the end and the service at the start, should the
/// name hold zeros.
fn split(stored: &[u8]) -> Option<(&str, &str, &str)> {
    let (service, rest) = std::str::from_utf8(stored).ok()?.split_once('\0')?;
    let (name, kind) = rest.rsplit_once('\0')?;
    Some((service, name, kind))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const STORED: [&str; 6] = [
        "b\0one\0",
        "b\0two\0server",
        "a\0one\0",
        "b\0two\0client",
        "c\0ze\0ro\0client",
        "b\0two\0client",
    ];

    fn each(visit: Visit<'_>) -> Result<(), Infallible> {
        STORED.iter().for_each(|stored| visit(stored.as_bytes()));
        Ok(())
    }

    #[test]
    fn services_are_listed_once() {
        assert_eq!(services(each), Ok(["a", "b", "c"].map(String::from).into()));
    }

    #[test]
    fn operations_are_those_of_the_service_and_kind() {
        let found = |service: &str, kind: Option<&str>| -> Vec<(String, String)> {
            let found = of_service(each, service, kind).unwrap_or_default();
            found.into_iter().map(|o| (o.name, o.kind)).collect()
        };
        let pair = |name: &str, kind: &str| (name.to_owned(), kind.to_owned());
        assert_eq!(
            found("b", None),
            [
                pair("one", ""),
                pair("two", "client"),
                pair("two", "server")
            ]
        );
        assert_eq!(found("b", Some("server")), [pair("two", "server")]);
        assert_eq!(found("c", None), [pair("ze\0ro", "client")]);
        assert!(found("d", None).is_empty());
    }
}
