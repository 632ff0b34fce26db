//! An OpenAPI description as a test holds it against answers.
//!
//! Written for `e2e/openapi.rs` instead of running schemathesis: that tool knows neither DPoP
//! nonces nor when an account must not have changed. It reads the part of JSON Schema 2020-12 that
//! the description uses, and stops the test at a keyword that it does not know, so that nothing
//! passes unread.

use reqwest::header::CONTENT_TYPE;
use serde_json::{Map, Value, json};

use crate::Answer;

/// Keywords that say nothing about whether a value fits, or that `fits` reads.
const KNOWN: [&str; 17] = [
    "$ref",
    "type",
    "required",
    "properties",
    "additionalProperties",
    "propertyNames",
    "items",
    "enum",
    "oneOf",
    "anyOf",
    "allOf",
    "format",
    "minimum",
    "description",
    "title",
    "example",
    "default",
];

#[derive(Debug)]
pub struct Description(Value);

/// One operation of the description.
#[derive(Debug, Clone)]
pub struct Operation {
    pub method: String,
    pub path: String,
    pub about: Value,
}

impl Description {
    #[must_use]
    pub fn new(document: Value) -> Self {
        Self(document)
    }

    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        let mut found = Vec::new();
        for (path, item) in self.0["paths"].as_object().unwrap() {
            for method in ["get", "put", "post", "delete"] {
                if let Some(about) = item.get(method) {
                    found.push(Operation {
                        method: method.to_uppercase(),
                        path: path.clone(),
                        about: about.clone(),
                    });
                }
            }
        }
        found
    }

    /// The schema of the operation's body, references followed. A body that may be left out is
    /// described as "null or this".
    #[must_use]
    pub fn body(&self, operation: &Operation) -> Option<Map<String, Value>> {
        let schema = operation
            .about
            .pointer("/requestBody/content/application~1json/schema")?;
        let alternatives = schema.get("oneOf").or_else(|| schema.get("anyOf"));
        let schema = match alternatives.and_then(Value::as_array) {
            Some(list) => list.iter().find(|one| one["type"] != "null").unwrap(),
            None => schema,
        };
        self.follow(schema).as_object().cloned()
    }

    fn follow<'s>(&'s self, schema: &'s Value) -> &'s Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(to) => self.follow(self.0.pointer(to.trim_start_matches('#')).unwrap()),
            None => schema,
        }
    }

    /// A value of the right shape, with every property; what it says is nonsense.
    #[must_use]
    pub fn sample(&self, schema: &Value) -> Value {
        let schema = self.follow(schema);
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return values[0].clone();
        }
        for keyword in ["oneOf", "anyOf", "allOf"] {
            if let Some(list) = schema.get(keyword).and_then(Value::as_array) {
                let one = list.iter().find(|one| one["type"] != "null").unwrap();
                return self.sample(one);
            }
        }
        match kinds(schema).first().copied() {
            Some("string") if schema["format"] == "uuid" => {
                json!("9e3a5a94-6d21-4f5e-8f56-0d0f7a4f0b11")
            }
            Some("string") => json!("c2FtcGxl"),
            Some("integer") => json!(1),
            Some("boolean") => json!(true),
            Some("array") => json!([]),
            _ => {
                let mut made = Map::new();
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    made.insert(name.clone(), self.sample(property));
                }
                Value::Object(made)
            }
        }
    }

    /// Whether the description says that this operation may answer so.
    ///
    /// # Errors
    /// A sentence that says what it does not say.
    pub fn allows(&self, operation: &Operation, answer: &Answer) -> Result<(), String> {
        let status = answer.status.to_string();
        let declared = operation
            .about
            .pointer(&format!("/responses/{status}"))
            .ok_or_else(|| format!("status {status} is not declared"))?;
        let Some(content) = declared.get("content").and_then(Value::as_object) else {
            return match answer.body {
                Value::Null => Ok(()),
                _ => Err(format!("{status} is declared without a body")),
            };
        };
        let kind = answer.headers.get(CONTENT_TYPE);
        let kind = kind.map_or("", |value| value.to_str().unwrap());
        let essence = kind.split(';').next().unwrap_or_default();
        let media = content
            .get(essence)
            .ok_or_else(|| format!("{status} is not declared as {kind:?}"))?;
        // Text and bytes have no shape, and were not read as JSON.
        if !essence.ends_with("json") {
            return Ok(());
        }
        self.fits(&media["schema"], &answer.body, "body")?;
        if essence == "application/problem+json" {
            let code = answer.body["code"].as_str().unwrap_or_default();
            let named = declared["description"].as_str().unwrap_or_default();
            if !names(named, code) {
                return Err(format!("{status} {code} is not among {named:?}"));
            }
            if answer.body["status"] != answer.status {
                return Err("the document tells another status".into());
            }
        }
        Ok(())
    }

    fn fits(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let schema = self.follow(schema);
        let members = schema.as_object().ok_or(format!("{at}: no schema"))?;
        if let Some(unknown) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
            return Err(format!(
                "{at}: this test does not know the keyword {unknown}"
            ));
        }
        let kinds = kinds(schema);
        if !kinds.is_empty() && !kinds.iter().any(|kind| is(value, kind)) {
            return Err(format!("{at}: expected {kinds:?}, found {value}"));
        }
        if let Some(values) = members.get("enum").and_then(Value::as_array)
            && !values.contains(value)
        {
            return Err(format!("{at}: {value} is none of {values:?}"));
        }
        for (keyword, every) in [("oneOf", false), ("anyOf", false), ("allOf", true)] {
            let Some(list) = members.get(keyword).and_then(Value::as_array) else {
                continue;
            };
            let good = list.iter().filter(|one| self.fits(one, value, at).is_ok());
            let enough = if every { list.len() } else { 1 };
            if good.count() < enough {
                return Err(format!("{at}: {value} fits not enough of {keyword}"));
            }
        }
        match value {
            Value::Object(object) => self.object_fits(members, object, at),
            Value::Array(items) => match members.get("items") {
                Some(schema) => items
                    .iter()
                    .try_for_each(|item| self.fits(schema, item, &format!("{at}[]"))),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// A property that is not described is a mistake, unless the schema is open.
    fn object_fits(
        &self,
        schema: &Map<String, Value>,
        object: &Map<String, Value>,
        at: &str,
    ) -> Result<(), String> {
        for name in schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if !object.contains_key(name.as_str().unwrap()) {
                return Err(format!("{at}: {name} is missing"));
            }
        }
        let properties = schema.get("properties").and_then(Value::as_object);
        let more = schema.get("additionalProperties");
        for (name, value) in object {
            let at = format!("{at}.{name}");
            match (properties.and_then(|known| known.get(name)), more) {
                (Some(schema), _) => self.fits(schema, value, &at)?,
                (None, Some(schema)) if schema.is_object() => self.fits(schema, value, &at)?,
                (None, Some(Value::Bool(true))) => {}
                (None, None) if properties.is_none() => {}
                (None, _) => return Err(format!("{at} is not described")),
            }
        }
        Ok(())
    }
}

fn kinds(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        _ => false,
    }
}

/// Codes stand as words; `ceremony-*` stands for all that begin so.
fn names(description: &str, code: &str) -> bool {
    description
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '*')
        .any(|word| match word.strip_suffix('*') {
            Some(start) => start.ends_with('-') && code.starts_with(start),
            None => word == code,
        })
}
