//! Foreign descriptions and names: open_clip's, Hugging Face's and our own, read and written.

pub mod decoder;
pub mod export;
pub mod hugging_face;
mod jax;
pub mod names;
pub mod open_clip;
mod source;
mod timm;

pub use source::{Description, Found, describe};

use crate::ModelError;
use serde_json::Value;

/// A JSON object with a place for messages: typed access to optional fields.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub(crate) place: &'a str,
    pub(crate) path: &'a str,
    pub(crate) value: &'a Value,
}

impl<'a> Fields<'a> {
    fn wrong(&self, field: &str, wanted: &str, found: &Value) -> ModelError {
        let text: String = found.to_string().chars().take(60).collect();
        ModelError::config(self.place, &format!("{}{field}", self.path), format!("{text} is not {wanted}"))
    }

    fn get(&self, field: &str) -> Option<&'a Value> {
        self.value.get(field).filter(|value| !value.is_null())
    }

    pub(crate) fn size(&self, field: &str, default: usize) -> Result<usize, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        let size = value.as_u64().and_then(|v| usize::try_from(v).ok());
        size.ok_or_else(|| self.wrong(field, "a whole number", value))
    }

    pub(crate) fn number(&self, field: &str, default: f64) -> Result<f64, ModelError> {
        let Some(value) = self.get(field) else { return Ok(default) };
        value.as_f64().ok_or_else(|| self.wrong(field, "a number", value))
    }

    pub(crate) fn flag(&self, field: &str) -> Result<bool, ModelError> {
        let Some(value) = self.get(field) else { return Ok(false) };
        value.as_bool().ok_or_else(|| self.wrong(field, "true or false", value))
    }

    pub(crate) fn text(&self, field: &str) -> Result<Option<&'a str>, ModelError> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(field, "a text", value))
    }

    /// A field that holds an object; absent is an empty one.
    pub(crate) fn object(&self, field: &str, path: &'a str) -> Result<Fields<'a>, ModelError> {
        static EMPTY: Value = Value::Null;
        let value = self.get(field).unwrap_or(&EMPTY);
        if !(value.is_object() || value.is_null()) {
            return Err(self.wrong(field, "an object", value));
        }
        Ok(Fields { place: self.place, path, value })
    }

    /// Refuses features that would change the mathematics and are not built.
    pub(crate) fn refuse(&self, field: &str, why: &str) -> Result<(), ModelError> {
        match self.get(field) {
            None => Ok(()),
            Some(Value::Bool(false)) => Ok(()),
            Some(value) if value.as_f64() == Some(0.0) => Ok(()),
            Some(_) => Err(ModelError::config(self.place, &format!("{}{field}", self.path), why)),
        }
    }
}

/// MLP width as the peers compute it: the product truncated.
pub(crate) fn mlp_width(width: usize, ratio: f64) -> usize {
    // A float-to-integer cast saturates; `check` refuses what comes out of hostile ratios.
    (width as f64 * ratio) as usize
}
