//! Holds an answer against its description: as much of JSON Schema as the API's description uses.

use serde_json::{Map, Value};

/// Every field is described, every required one there, every value of its kind; `at` names the place in failures.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Err(wrong) = fits(document, schema, value, at) {
        panic!("{wrong}");
    }
}

fn fits(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let target = document.pointer(name.trim_start_matches('#')).ok_or_else(|| format!("{at}: {name} is not described"))?;
        return fits(document, target, value, at);
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array) {
        let tried: Vec<_> = any.iter().map(|one| fits(document, one, value, at)).collect();
        return if tried.iter().any(Result::is_ok) { Ok(()) } else { tried.into_iter().next().unwrap_or(Ok(())) };
    }
    let ok = match schema.get("type").and_then(Value::as_str) {
        None => true,
        Some("object") => return object(document, schema, value, at),
        Some("array") => {
            let items = value.as_array().ok_or_else(|| format!("{at}: {value} is no list"))?;
            return items.iter().enumerate().try_for_each(|(i, item)| fits(document, &schema["items"], item, &format!("{at}[{i}]")));
        }
        Some("string") => value.as_str().is_some_and(|text| words(schema).is_none_or(|words| words.contains(&text))),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some(other) => return Err(format!("{at}: no such type {other}")),
    };
    if ok { Ok(()) } else { Err(format!("{at}: {value} is not as described: {schema}")) }
}

fn words(schema: &Value) -> Option<Vec<&str>> {
    schema.get("enum")?.as_array()?.iter().map(Value::as_str).collect()
}

fn object(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let fields = value.as_object().ok_or_else(|| format!("{at}: {value} is no object"))?;
    let none = Map::new();
    let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            return Err(format!("{at}: {name} is missing"));
        }
    }
    for (name, value) in fields {
        let place = format!("{at}.{name}");
        match (properties.get(name), &schema["additionalProperties"]) {
            (Some(schema), _) => fits(document, schema, value, &place)?,
            (None, Value::Bool(false)) => return Err(format!("{place}: not described")),
            (None, rest) => fits(document, rest, value, &place)?,
        }
    }
    Ok(())
}

#[test]
fn what_differs_is_found() {
    let document = serde_json::json!({});
    let schema = serde_json::json!({ "type": "object", "properties": { "a": { "type": "integer" } }, "required": ["a"], "additionalProperties": false });
    assert!(fits(&document, &schema, &serde_json::json!({ "a": 1 }), "").is_ok());
    for wrong in [serde_json::json!({}), serde_json::json!({ "a": "1" }), serde_json::json!({ "a": 1, "b": 2 }), serde_json::json!([])] {
        assert!(fits(&document, &schema, &wrong, "").is_err(), "{wrong}");
    }
}
