//! Bodies in which an object is an object.
//!
//! Used for every body that is parsed. What serde derives for a struct takes a list of the fields' values as well, at
//! every depth, and none of it stands in the API's description: a body would have two forms, one of which no check of
//! names applies to (`deny_unknown_fields`, a field that stands twice). So whoever wants a struct is given a map here,
//! and nothing else. It stands around the whole parser, because an attribute on each struct would be forgotten on the
//! next one. What is inside of a value that is kept as JSON, such as a credential, is judged where that is read.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// The value that this text is, and nothing behind it.
///
/// # Errors
/// The parser's; also where a list stands in the place of an object.
pub(super) fn parse<T: DeserializeOwned>(json: &[u8]) -> serde_json::Result<T> {
    let mut parser = serde_json::Deserializer::from_slice(json);
    let value = T::deserialize(Strict(&mut parser))?;
    parser.end()?;
    Ok(value)
}

/// Stands around each part of the conversation between the parser and what is parsed, and changes one word of it.
struct Strict<T>(T);

macro_rules! as_it_is {
    ($($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            self.0.$method(Strict(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Strict<D> {
    type Error = D::Error;

    /// The word.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_map(Strict(visitor))
    }

    as_it_is! {
        deserialize_any deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64
        deserialize_i128 deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
        deserialize_f32 deserialize_f64 deserialize_char deserialize_str deserialize_string deserialize_bytes
        deserialize_byte_buf deserialize_option deserialize_unit deserialize_seq deserialize_map
        deserialize_identifier deserialize_ignored_any
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_unit_struct(name, Strict(visitor))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_newtype_struct(name, Strict(visitor))
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_tuple(len, Strict(visitor))
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_tuple_struct(name, len, Strict(visitor))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, Strict(visitor))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

macro_rules! told_on {
    ($($method:ident($value:ty))*) => {
        $(fn $method<E: serde::de::Error>(self, value: $value) -> Result<Self::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Strict<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    told_on! {
        visit_bool(bool) visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128) visit_f32(f32) visit_f64(f64)
        visit_char(char) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String) visit_bytes(&[u8])
        visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        self.0.visit_some(Strict(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        self.0.visit_newtype_struct(Strict(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<Self::Value, A::Error> {
        self.0.visit_seq(Strict(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(Strict(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<Self::Value, A::Error> {
        self.0.visit_enum(Strict(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Strict<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        self.0.deserialize(Strict(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Self::Error> {
        self.0.next_element_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Self::Error> {
        self.0.next_key_seed(Strict(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<S::Value, Self::Error> {
        self.0.next_value_seed(Strict(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Strict<A> {
    type Error = A::Error;
    type Variant = Strict<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), Self::Error> {
        let (value, variant) = self.0.variant_seed(Strict(seed))?;
        Ok((value, Strict(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Strict<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), Self::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<S::Value, Self::Error> {
        self.0.newtype_variant_seed(Strict(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.tuple_variant(len, Strict(visitor))
    }

    /// The word again: what is in such a variant is a struct without a name.
    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.newtype_variant_seed(Fields(visitor))
    }
}

struct Fields<V>(V);

impl<'de, V: Visitor<'de>> DeserializeSeed<'de> for Fields<V> {
    type Value = V::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<Self::Value, D::Error> {
        inner.deserialize_map(Strict(self.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        id: String,
        #[serde(default)]
        more: Option<Box<Inner>>,
    }

    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    enum Kind {
        Plain,
        Held { by: String },
        Of(Inner),
        Pair(u8, Inner),
    }

    #[derive(Debug, Deserialize, Serialize, PartialEq)]
    struct Outer {
        one: Inner,
        list: Vec<Inner>,
        named: BTreeMap<String, Inner>,
        kinds: Vec<Kind>,
        free: Value,
        numbers: (u64, i8, f64, bool),
    }

    fn sample() -> Value {
        let inner = json!({"id": "a", "more": {"id": "b", "more": null}});
        json!({
            "one": inner,
            "list": [inner],
            "named": {"x": inner},
            "kinds": ["Plain", {"Held": {"by": "c"}}, {"Of": inner}, {"Pair": [1, inner]}],
            "free": {"any": [1, {"thing": []}]},
            "numbers": [7, -1, 0.5, true],
        })
    }

    #[test]
    fn whatever_is_an_object_is_read_as_before() {
        let text = sample().to_string();
        let strict: Outer = parse(text.as_bytes()).unwrap();
        assert_eq!(strict, serde_json::from_str(&text).unwrap());
        assert_eq!(serde_json::to_value(&strict).unwrap(), sample());
        for behind in ["{}", "1", "]"] {
            assert!(parse::<Outer>(format!("{text}{behind}").as_bytes()).is_err());
        }
    }

    /// The control is what the parser takes by itself.
    #[test]
    fn a_list_in_the_place_of_an_object_is_refused_at_every_depth() {
        let list = json!(["a", null]);
        for place in [
            "/one",
            "/one/more",
            "/list/0",
            "/named/x",
            "/kinds/1/Held",
            "/kinds/2/Of",
            "/kinds/3/Pair/1",
        ] {
            let mut body = sample();
            *body.pointer_mut(place).unwrap() = match place {
                "/kinds/1/Held" => json!(["c"]),
                _ => list.clone(),
            };
            let text = body.to_string();
            assert!(serde_json::from_str::<Outer>(&text).is_ok(), "{place}");
            let refused = parse::<Outer>(text.as_bytes()).unwrap_err().to_string();
            assert!(refused.starts_with("invalid type: sequence"), "{refused}");
        }
        let whole = json!(["a", null]).to_string();
        assert!(serde_json::from_str::<Inner>(&whole).is_ok());
        assert!(parse::<Inner>(whole.as_bytes()).is_err());
    }

    #[test]
    fn names_are_checked_as_before() {
        for text in [
            r#"{"id": "a", "other": 1}"#,
            r#"{"id": "a", "id": "b"}"#,
            r#"{"more": null}"#,
            r#"{"id": 7}"#,
            "null",
            "7",
        ] {
            let strict = parse::<Inner>(text.as_bytes()).unwrap_err().to_string();
            let plain = serde_json::from_str::<Inner>(text).unwrap_err().to_string();
            assert_eq!(strict, plain, "{text}");
        }
    }
}
