//! Forms as clients send them, urlencoded or multipart: documented by a type, read by us within bounds.
//! An empty field counts as absent; of a repeated one the last counts, unless it must stand once; unknown ones are kept and
//! ignored.

use std::collections::{HashMap, HashSet};
use std::marker::PhantomData;

use daybook_domain::ids::IdError;
use poem::http::header;
use poem::{Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, Registry};
use poem_openapi::types::Type;
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};
use serde_json::{Map, Value};
use tokio_util::task::TaskTracker;

use crate::errors::{ApiError, At};
use crate::multipart::Multipart;
use crate::params;

/// The most bytes of a text field.
const MAX_FIELD: usize = 1 << 20;

/// The most text fields of a form.
const MAX_FIELDS: usize = 1000;

/// The most files of a form.
const MAX_FILES: usize = 50;

/// The most parts of a form, those that count as neither included.
const MAX_PARTS: usize = MAX_FIELDS + MAX_FILES;

/// From how many bytes on work with them is done where it keeps no other request waiting.
const HEAVY: usize = 1 << 20;

/// A form, documented as a `D`.
pub(crate) struct Form<D>(pub Fields, PhantomData<fn() -> D>);

/// A form's fields.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    texts: HashMap<String, String>,
    /// The names of those that came more than once.
    repeated: HashSet<String>,
    /// The media type of a body that is no form.
    other: Option<String>,
    /// The files sent as `files`, in order.
    pub files: Vec<Upload>,
}

/// A file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    /// The name it was sent under.
    pub name: String,
    /// Its media type, if the client said one.
    pub content_type: Option<String>,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl<'a, D: Type> ApiExtractor<'a> for Form<D> {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(registry: &mut Registry) {
        D::register(registry);
    }

    fn request_meta() -> Option<MetaRequest> {
        let kinds = ["multipart/form-data", "application/x-www-form-urlencoded"];
        let content = kinds.map(|content_type| MetaMediaType { content_type, schema: D::schema_ref() });
        Some(MetaRequest { description: None, content: content.into(), required: D::IS_REQUIRED })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _options: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        Ok(Self(Fields::read(request, body).await?, PhantomData))
    }
}

impl Fields {
    /// Reads the body to its end. Anything that is no form has no fields.
    async fn read(request: &Request, body: &mut RequestBody) -> poem::Result<Self> {
        let kind = request.header(header::CONTENT_TYPE).unwrap_or_default().to_ascii_lowercase();
        if kind.starts_with("multipart/form-data") {
            let given = request.header(header::CONTENT_TYPE).unwrap_or_default();
            let Some(mut multipart) = Multipart::new(given, body.take()?) else {
                return Err(ApiError::bad("Missing boundary in multipart.").into());
            };
            let read = Self::from_multipart(&mut multipart).await;
            multipart.finish().await;
            return Ok(read?);
        }
        let bytes = body.take()?.into_bytes().await?;
        if kind.starts_with("application/x-www-form-urlencoded") {
            let size = bytes.len();
            return Ok(aside(request.data(), size, move || Self::from_urlencoded(&bytes)).await??);
        }
        let other = Some(kind).filter(|kind| !kind.is_empty() && !bytes.is_empty());
        Ok(Self { other, ..Self::default() })
    }

    fn from_urlencoded(bytes: &[u8]) -> Result<Self, ApiError> {
        // Counted first: a list of so many fields would be far larger than the body.
        if bytes.split(|byte| *byte == b'&').filter(|field| !field.is_empty()).nth(MAX_FIELDS).is_some() {
            return Err(too_many("fields", MAX_FIELDS));
        }
        let pairs: Vec<(String, String)> = serde_urlencoded::from_bytes(bytes).unwrap_or_default();
        if pairs.iter().any(|(name, value)| name.len() > MAX_FIELD || value.len() > MAX_FIELD) {
            return Err(ApiError::bad("Field exceeded maximum size of 1024KB."));
        }
        let mut form = Self::default();
        pairs.into_iter().for_each(|(name, value)| form.add_text(name, value));
        Ok(form)
    }

    fn add_text(&mut self, name: String, text: String) {
        if text.is_empty() {
            return;
        }
        if self.texts.contains_key(&name) {
            self.repeated.insert(name.clone());
        }
        self.texts.insert(name, text);
    }

    /// Reads parts up to the first that is refused.
    async fn from_multipart(multipart: &mut Multipart) -> Result<Self, ApiError> {
        let (mut form, mut parts, mut fields) = (Self::default(), 0, 0);
        loop {
            let mut part = match multipart.next().await {
                Ok(Some(part)) => part,
                Ok(None) => return Ok(form),
                // A body that breaks off says nothing: clients expect the first required field to be missed.
                Err(_) => return Ok(Self::default()),
            };
            let file = part.file_name().map(str::to_owned);
            parts += 1;
            fields += usize::from(file.is_none());
            if fields > MAX_FIELDS {
                return Err(too_many("fields", MAX_FIELDS));
            }
            if parts > MAX_PARTS {
                return Err(too_many("parts", MAX_PARTS));
            }
            let limit = if file.is_some() { usize::MAX } else { MAX_FIELD };
            let mut bytes = Vec::new();
            loop {
                match multipart.chunk(&mut part).await {
                    Ok(Some(chunk)) if chunk.len() > limit - bytes.len() => {
                        return Err(ApiError::bad("Part exceeded maximum size of 1024KB."));
                    }
                    Ok(Some(chunk)) => bytes.extend_from_slice(&chunk),
                    Ok(None) => break,
                    Err(_) => return Ok(Self::default()),
                }
            }
            let content_type = part.content_type().map(|mime| mime.essence_str().to_owned());
            form.add(part.name().unwrap_or_default().to_owned(), file, content_type, bytes)?;
        }
    }

    fn add(
        &mut self,
        name: String,
        file: Option<String>,
        content_type: Option<String>,
        bytes: Vec<u8>,
    ) -> Result<(), ApiError> {
        match file {
            // A browser's form sends an empty part where no file was chosen.
            Some(file) if name == "files" && file.is_empty() && bytes.is_empty() => {}
            Some(_) if name == "files" && self.files.len() >= MAX_FILES => return Err(too_many("files", MAX_FILES)),
            Some(file) if name == "files" => self.files.push(Upload { name: file, content_type, bytes }),
            Some(_) => {}
            None if name == "files" && !bytes.is_empty() => {
                return Err(At("body", "files").wrong("Expected a file, received text", Value::Null));
            }
            None => {
                let not_text = |_| At("body", &name).wrong("the text is not UTF-8", Value::Null);
                let text = String::from_utf8(bytes).map_err(not_text)?;
                self.add_text(name, text);
            }
        }
        Ok(())
    }

    /// The members of a JSON object as a form would have them: a null or empty one counts as absent, and what is no text
    /// stands as its JSON.
    pub fn of_members(members: Map<String, Value>) -> Self {
        let mut fields = Self::default();
        for (name, value) in members {
            match value {
                Value::Null => {}
                Value::String(text) => fields.add_text(name, text),
                other => fields.add_text(name, other.to_string()),
            }
        }
        fields
    }

    /// How many bytes it holds.
    pub fn size(&self) -> usize {
        let texts: usize = self.texts.values().map(String::len).sum();
        texts + self.files.iter().map(|file| file.bytes.len()).sum::<usize>()
    }

    /// A field's text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    /// Makes sure that none of these came more than once.
    ///
    /// # Errors
    /// 422 for the first that did.
    pub fn once(&self, names: &[&str]) -> Result<(), ApiError> {
        let twice = names.iter().find(|name| self.repeated.contains(**name));
        twice.map_or(Ok(()), |name| {
            Err(At("body", name).wrong("the field came more than once: send it once", Value::Null))
        })
    }

    /// The media type of a body that is no form, and of which nothing was read.
    pub fn no_form(&self) -> Option<&str> {
        self.other.as_deref()
    }

    /// Takes a field's text out.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.texts.remove(name)
    }

    /// A boolean.
    ///
    /// # Errors
    /// 422 when it is none.
    pub fn boolean(&self, name: &str, default: bool) -> Result<bool, ApiError> {
        self.text(name).map_or(Ok(default), |text| params::boolean(At("body", name), text))
    }

    /// A whole number.
    ///
    /// # Errors
    /// 422 when it is none.
    pub fn int(&self, name: &str) -> Result<Option<i64>, ApiError> {
        self.text(name).map(|text| params::int(At("body", name), text)).transpose()
    }

    /// An id.
    ///
    /// # Errors
    /// 422 when it cannot be one.
    pub fn id<T: TryFrom<String, Error = IdError>>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.text(name).map(|text| params::id(At("body", name), text)).transpose()
    }

    /// JSON; null counts as absent.
    ///
    /// # Errors
    /// 422 when it cannot be read.
    pub fn json(&self, name: &str) -> Result<Option<Value>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let value: Value = serde_json::from_str(text).map_err(|error| At("body", name).no_json(text, &error))?;
        Ok(Some(value).filter(|value| !value.is_null()))
    }

    /// A JSON object.
    ///
    /// # Errors
    /// 422 when it cannot be read, 400 when it is no object.
    pub fn object(&self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        match self.json(name)? {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(ApiError::bad(format!("Invalid {name} parameter: expected a JSON object"))),
        }
    }

    /// A JSON list; empty when absent.
    ///
    /// # Errors
    /// 422 when it cannot be read or is no list.
    pub fn list(&self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.json(name)? {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => Ok(items),
            Some(_) => Err(At("body", name).wrong("expected a JSON list", Value::Null)),
        }
    }
}

/// Does `work` on `size` bytes, where that takes long on a thread that serves no connections.
///
/// # Errors
/// 500 when the work failed.
pub(crate) async fn aside<T, F>(tasks: Option<&TaskTracker>, size: usize, work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tasks.filter(|_| size > HEAVY) {
        Some(tasks) => tasks.spawn_blocking(work).await.map_err(|error| ApiError::internal(&error)),
        None => Ok(work()),
    }
}

fn too_many(what: &str, most: usize) -> ApiError {
    ApiError::bad(format!("Too many {what}. Maximum number of {what} is {most}."))
}

#[cfg(test)]
pub(crate) mod tests {
    use poem::http::Method;

    use super::*;

    /// The form in a body of this type.
    pub(crate) async fn form(content_type: &str, body: impl Into<poem::Body>) -> poem::Result<Fields> {
        let request = Request::builder().method(Method::POST).header("content-type", content_type).body(body);
        let (request, mut body) = request.split();
        Fields::read(&request, &mut body).await
    }

    /// A urlencoded form.
    pub(crate) async fn urlencoded(pairs: &[(&str, &str)]) -> Fields {
        form("application/x-www-form-urlencoded", serde_urlencoded::to_string(pairs).unwrap()).await.unwrap()
    }

    fn part(headers: &str, text: &str) -> String {
        format!("--x\r\nContent-Disposition: form-data; {headers}\r\n\r\n{text}\r\n")
    }

    const MULTIPART: &str = "multipart/form-data; boundary=x";

    async fn refusal(error: poem::Error) -> (u16, Value) {
        let response = error.into_response();
        (response.status().as_u16(), response.into_body().into_json().await.unwrap())
    }

    #[tokio::test]
    async fn both_encodings_give_the_same_fields() {
        let plain = form("application/x-www-form-urlencoded", "message=Hi+there&stream=False&x=&n=7").await.unwrap();
        let parts =
            [("name=\"message\"", "Hi there"), ("name=\"stream\"", "False"), ("name=\"x\"", ""), ("name=n", "7")];
        let body: String = parts.iter().map(|(head, text)| part(head, text)).collect::<String>() + "--x--\r\n";
        let multi = form(MULTIPART, body).await.unwrap();
        for form in [&plain, &multi] {
            assert_eq!(form.text("message"), Some("Hi there"));
            assert!(!form.boolean("stream", true).unwrap());
            assert_eq!(form.text("x"), None);
            assert_eq!(form.int("n").unwrap(), Some(7));
        }
    }

    #[test]
    fn the_members_of_an_object_are_fields() {
        let members = serde_json::json!({"a": "x", "b": 7, "c": true, "d": null, "e": "", "f": {"g": [1]}});
        let fields = Fields::of_members(members.as_object().cloned().unwrap());
        assert_eq!((fields.text("a"), fields.text("d"), fields.text("e")), (Some("x"), None, None));
        assert_eq!((fields.int("b").unwrap(), fields.boolean("c", false).unwrap()), (Some(7), true));
        assert_eq!(Value::from(fields.object("f").unwrap()), serde_json::json!({"g": [1]}));
    }

    #[tokio::test]
    async fn what_must_stand_once_is_told_when_it_stands_twice() {
        let plain = form("application/x-www-form-urlencoded", "a=1&b=2&a=3&b=").await.unwrap();
        let parts = [("name=\"a\"", "1"), ("name=\"b\"", "2"), ("name=\"a\"", "3"), ("name=\"b\"", "")];
        let body: String = parts.iter().map(|(head, text)| part(head, text)).collect::<String>() + "--x--\r\n";
        for form in [plain, form(MULTIPART, body).await.unwrap()] {
            assert_eq!((form.text("a"), form.text("b")), (Some("3"), Some("2")));
            assert!(form.once(&["b", "c"]).is_ok());
            assert!(matches!(form.once(&["b", "a"]), Err(ApiError::Invalid(_))));
        }
    }

    #[tokio::test]
    async fn files_keep_their_bytes_and_order() {
        let head = |name: &str| format!("name=\"files\"; filename=\"{name}\"\r\nContent-Type: text/plain");
        let body = part(&head("a.txt"), "one") + &part(&head("b.txt"), &"2".repeat(2 << 20)) + "--x--\r\n";
        let form = form(MULTIPART, body).await.unwrap();
        let names: Vec<&str> = form.files.iter().map(|file| file.name.as_str()).collect();
        assert_eq!(names, ["a.txt", "b.txt"]);
        assert_eq!(form.files[0].bytes, b"one");
        assert_eq!(form.files[1].bytes.len(), 2 << 20);
    }

    #[tokio::test]
    async fn a_field_over_a_megabyte_is_refused_as_recorded() {
        let large = "x".repeat(MAX_FIELD + 1);
        let error = form(MULTIPART, part("name=\"message\"", &large) + "--x--\r\n").await.unwrap_err();
        let expected = serde_json::json!({"detail": "Part exceeded maximum size of 1024KB."});
        assert_eq!(refusal(error).await, (400, expected));
        let error = form("application/x-www-form-urlencoded", format!("message={large}")).await.unwrap_err();
        let expected = serde_json::json!({"detail": "Field exceeded maximum size of 1024KB."});
        assert_eq!(refusal(error).await, (400, expected));
    }

    #[tokio::test]
    async fn broken_bodies_are_told_apart() {
        let error = form("multipart/form-data", "hello").await.unwrap_err();
        assert_eq!(refusal(error).await, (400, serde_json::json!({"detail": "Missing boundary in multipart."})));
        let cut = "--x\r\nContent-Disposition: form-data; name=\"message\"\r\n\r\nHello";
        assert_eq!(form(MULTIPART, cut).await.unwrap().text("message"), None);
        assert_eq!(form("application/json", "{\"message\": \"Hi\"}").await.unwrap().text("message"), None);
    }

    #[tokio::test]
    async fn more_files_than_allowed_are_refused() {
        let one = part("name=\"files\"; filename=\"a.txt\"", "x");
        let error = form(MULTIPART, one.repeat(MAX_FILES + 1) + "--x--\r\n").await.unwrap_err();
        assert_eq!(refusal(error).await.0, 400);
    }

    #[tokio::test]
    async fn parts_are_counted() {
        let one = "--x\r\nContent-Disposition: form-data; filename=\"\"\r\n\r\n\r\n";
        let error = form(MULTIPART, one.repeat(MAX_PARTS + 1) + "--x--\r\n").await.unwrap_err();
        let expected = serde_json::json!({"detail": "Too many parts. Maximum number of parts is 1050."});
        assert_eq!(refusal(error).await, (400, expected));
        let fields = part("name=\"a\"", "x").repeat(MAX_FIELDS + 1) + "--x--\r\n";
        let expected = serde_json::json!({"detail": "Too many fields. Maximum number of fields is 1000."});
        assert_eq!(refusal(form(MULTIPART, fields).await.unwrap_err()).await, (400, expected.clone()));
        let error = form("application/x-www-form-urlencoded", "a&".repeat(MAX_FIELDS + 1)).await.unwrap_err();
        assert_eq!(refusal(error).await, (400, expected));
    }

    #[tokio::test]
    async fn a_body_without_its_boundary_has_no_fields() {
        assert_eq!(form(MULTIPART, "a".repeat(1 << 20)).await.unwrap().text("message"), None);
    }

    #[tokio::test]
    async fn heavy_work_is_done_on_another_thread() {
        let (tasks, here) = (TaskTracker::new(), std::thread::current().id());
        let at = |size| aside(Some(&tasks), size, || std::thread::current().id());
        assert_eq!(at(HEAVY).await.unwrap(), here);
        assert_ne!(at(HEAVY + 1).await.unwrap(), here);
    }

    #[tokio::test]
    async fn json_fields_say_what_is_wrong_with_them() {
        let form = urlencoded(&[("metadata", "[1]"), ("session_state", "{nope"), ("dependencies", "null")]).await;
        let error = poem::Error::from(form.object("metadata").unwrap_err());
        let expected = serde_json::json!({"detail": "Invalid metadata parameter: expected a JSON object"});
        assert_eq!(refusal(error).await, (400, expected));
        let (status, body) = refusal(form.object("session_state").unwrap_err().into()).await;
        assert_eq!((status, &body["detail"][0]["loc"]), (422, &serde_json::json!(["body", "session_state"])));
        assert_eq!(form.object("dependencies").unwrap(), None);
    }
}
