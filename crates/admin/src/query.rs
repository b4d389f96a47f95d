//! The query parameters of a request.

/// The value of `name` in a query that has exactly this parameter.
///
/// # Errors
/// The text of the error response. An unknown parameter is an error, since a typo in a name must not count as its absence.
pub(crate) fn single(query: Option<&str>, name: &str) -> Result<Option<String>, String> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    match query.split_once('=') {
        Some((found, value)) if found == name && !value.contains('&') => match decode(value) {
            Some(value) => Ok(Some(value)),
            None => Err(format!("the value of {name} is not percent-encoded UTF-8")),
        },
        _ => Err(format!("there is one parameter here, {name}=...")),
    }
}

/// Every parameter of a query.
///
/// # Errors
/// The text of the error response: `known` lists the parameters that there are.
pub(crate) fn all(query: Option<&str>, known: &[&str]) -> Result<Vec<(String, String)>, String> {
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let read = |pair: &str| match pair.split_once('=') {
        Some((name, value)) if known.contains(&name) => match decode(value) {
            Some(value) => Ok((name.to_owned(), value)),
            None => Err(format!("the value of {name} is not percent-encoded UTF-8")),
        },
        _ => Err(format!("the parameters here are {}", known.join(", "))),
    };
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in pairs {
        let (name, value) = read(pair)?;
        if found.iter().any(|(other, _)| *other == name) {
            return Err(format!("{name} is there twice"));
        }
        found.push((name, value));
    }
    Ok(found)
}

/// Undoes `%41`. A plus stays one: no value here has a space in it.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_parameter_is_read_and_any_other_refused() {
        assert_eq!(single(None, "level"), Ok(None));
        assert_eq!(single(Some(""), "level"), Ok(None));
        assert_eq!(single(Some("level=info"), "level"), Ok(Some("info".to_owned())));
        assert_eq!(single(Some("level=info,access=debug"), "level"), Ok(Some("info,access=debug".to_owned())));
        assert_eq!(single(Some("level=access%3Ddebug%2cx"), "level"), Ok(Some("access=debug,x".to_owned())));
        for wrong in
            ["levle=info", "level", "level=a&level=b", "x=1&level=a", "level=%", "level=%4", "level=%+4", "level=%ff"]
        {
            assert!(single(Some(wrong), "level").is_err(), "{wrong}");
        }
    }
}
