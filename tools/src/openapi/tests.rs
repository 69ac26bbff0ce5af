use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use daybook_domain::tool::Effect;
use serde_json::json;

use super::*;
use crate::testing::{Server, answer, context};
use crate::{ToolError, ToolOutput};

const DOCUMENT: &str = r##"
openapi: 3.0.3
info: {title: Pets, version: 1.0.0}
paths:
  /pets/{petId}:
    parameters:
      - {name: petId, in: path, required: true, schema: {type: integer}}
    get:
      operationId: getPet
      summary: One pet.
      tags: [read]
      parameters:
        - {name: X-Trace, in: header, schema: {type: array, items: {type: string}}}
        - {name: api_key, in: query, schema: {type: string}}
      responses: {200: {description: ok}, 404: {description: none}}
    put:
      operationId: pets.replace
      requestBody: {required: true, content: {application/json: {schema: {$ref: '#/components/schemas/Pet'}}}}
      responses: {default: {description: ok}}
  /pets:
    get:
      operationId: listPets
      description: All pets.
      tags: [read]
      parameters:
        - $ref: '#/components/parameters/Tags'
        - {name: ids, in: query, explode: false, schema: {type: array, items: {type: integer}}}
        - {name: 'filter', in: query, style: deepObject, explode: true, schema: {type: object}}
        - {name: 'page[size]', in: query, schema: {type: integer, nullable: true}}
        - {name: where, in: query, content: {application/json: {schema: {type: object}}}}
      responses: {200: {description: ok}}
    post:
      requestBody:
        required: true
        content:
          text/plain: {schema: {type: string}}
          application/json: {schema: {$ref: '#/components/schemas/Pet'}}
      responses: {201: {description: ok}}
  /form:
    post:
      operationId: sendForm
      requestBody:
        required: true
        content: {application/x-www-form-urlencoded: {schema: {type: object, properties: {a: {type: string}, b: {type: array, items: {type: string}}}}}}
      responses: {200: {description: ok}}
  /upload:
    post:
      operationId: sendParts
      requestBody:
        content: {multipart/form-data: {schema: {type: object, required: [text], properties: {text: {type: string}}}}}
      responses: {200: {description: ok}}
  /cookie:
    get:
      operationId: needsCookie
      parameters: [{name: c, in: cookie, required: true, schema: {type: string}}]
      responses: {200: {description: ok}}
components:
  parameters:
    Tags: {name: tag, in: query, description: Any of these., schema: {type: array, items: {type: string}}}
  schemas:
    Pet:
      type: object
      required: [id, name]
      properties:
        id: {type: integer, readOnly: true}
        name: {type: string, minLength: 1}
        owner: {$ref: '#/components/schemas/Owner'}
        friends: {type: array, items: {$ref: '#/components/schemas/Pet'}}
    Owner: {type: object, nullable: true, properties: {email: {type: string}}}
"##;

async fn pets() -> Server {
    Server::new(|request| {
        let path = request.split(' ').nth(1).unwrap_or_default();
        match path {
            "/openapi.yaml" => answer("200 OK", &["Content-Type: application/yaml"], DOCUMENT),
            path if path.starts_with("/pets/404") => answer(
                "404 Not Found",
                &["Content-Type: application/json"],
                format!("{{\"e\":\"{}\"}}", "x".repeat(9000)),
            ),
            path if path.starts_with("/pets/9") => answer("302 Found", &["Location: http://127.0.0.1:1/"], ""),
            path if path.starts_with("/pets/8") => answer("200 OK", &["Content-Type: image/png"], b"\x89PNG"),
            path if path.starts_with("/pets/204") => answer("204 No Content", &[], ""),
            _ => answer("200 OK", &["Content-Type: application/json"], r#"{"ok":true}"#),
        }
    })
    .await
}

fn source(server: &Server, more: serde_json::Value) -> OpenApiSource {
    let mut all = json!({"document": server.url("/openapi.yaml"), "allow_private": ["127.0.0.1"]});
    all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
    OpenApiSource::new("pets", serde_json::from_value(all).unwrap()).unwrap()
}

fn named<'a>(tools: &'a [Arc<dyn Tool>], name: &str) -> &'a Arc<dyn Tool> {
    tools.iter().find(|tool| tool.spec().name == name).unwrap()
}

async fn call(tools: &[Arc<dyn Tool>], name: &str, arguments: serde_json::Value) -> Result<ToolOutput, ToolError> {
    named(tools, name).call(context(), arguments.as_object().cloned().unwrap()).await
}

#[tokio::test]
async fn every_operation_is_a_tool() {
    let server = pets().await;
    let source = source(&server, json!({"auth": {"query": {"name": "api_key", "value": "hunter2"}}}));
    assert!(!format!("{source:?}").contains("hunter2"), "{source:?}");
    let tools = source.tools().await.unwrap();
    let told: Vec<_> = tools.iter().map(|tool| (tool.spec().name.as_str(), tool.spec().effect)).collect();
    let expected = [
        ("getPet", Effect::Pure),
        ("pets_replace", Effect::Idempotent),
        ("listPets", Effect::Pure),
        ("post__pets", Effect::Unsafe),
        ("sendForm", Effect::Unsafe),
        ("sendParts", Effect::Unsafe),
    ];
    assert_eq!(told, expected);
    let get = named(&tools, "getPet").spec();
    assert_eq!(get.description, "One pet.");
    assert_eq!(get.parameters["required"], json!(["petId"]));
    let names: Vec<_> = get.parameters["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["petId", "X-Trace"], "the key is the operator's");
    let put = &named(&tools, "pets_replace").spec().parameters;
    assert_eq!(put["required"], json!(["petId", "name"]));
    let pet = json!({"type": ["object", "null"], "properties": {"email": {"type": "string"}}});
    assert_eq!(put["properties"]["owner"], pet);
    assert_eq!(put["properties"]["friends"], json!({"type": "array", "items": {}}));
    let list = &named(&tools, "listPets").spec().parameters["properties"];
    assert_eq!(list["tag"]["description"], "Any of these.");
    assert_eq!(list["page_size"]["type"], json!(["integer", "null"]));
    let parts = &named(&tools, "sendParts").spec().parameters;
    assert_eq!((&parts["required"], &parts["properties"]["body"]["required"]), (&json!([]), &json!(["text"])));
}

#[tokio::test]
async fn arguments_go_where_they_belong() {
    let server = pets().await;
    let tools = source(&server, json!({"auth": {"bearer": {"token": "hunter2"}}})).tools().await.unwrap();
    let request = async |name: &str, arguments| {
        call(&tools, name, arguments).await.unwrap();
        server.requests().pop().unwrap()
    };
    let get = request("getPet", json!({"petId": 7, "X-Trace": ["a", "b"], "api_key": "k"})).await;
    assert!(get.starts_with("GET /pets/7?api_key=k HTTP/1.1"), "{get}");
    assert!(
        get.contains("x-trace: a,b") && get.contains("Bearer hunter2") && !get.contains("idempotency-key"),
        "{get}"
    );
    let all = json!({
        "tag": ["a b", "c&d"], "ids": [1, 2], "filter": {"age": {"min": 1}, "name": "x"}, "page_size": 5, "where": {"q": 1},
    });
    let list = request("listPets", all).await;
    let query = "tag=a%20b&tag=c%26d&ids=1,2&filter%5Bage%5D%5Bmin%5D=1&filter%5Bname%5D=x&page%5Bsize%5D=5&where=%7B%22q%22%3A1%7D";
    assert!(list.starts_with(&format!("GET /pets?{query} HTTP")), "{list}");
    let put =
        request("pets_replace", json!({"petId": 1, "name": "Rex", "owner": null, "friends": [{"name": "Tom"}]})).await;
    assert!(put.starts_with("PUT /pets/1 ") && put.contains("idempotency-key: key-1"), "{put}");
    assert!(put.ends_with(r#"{"name":"Rex","owner":null,"friends":[{"name":"Tom"}]}"#), "{put}");
    let form = request("sendForm", json!({"a": "1&2", "b": ["x", "y z"]})).await;
    assert!(form.ends_with("a=1%262&b=x&b=y+z") && form.contains("x-www-form-urlencoded"), "{form}");
    let parts = request("sendParts", json!({"body": {"text": "hello"}})).await;
    assert!(parts.contains("name=\"text\"\r\n\r\nhello\r\n--") && parts.contains("boundary="), "{parts}");
    let none = request("sendParts", json!({})).await;
    assert!(!none.contains("multipart"), "{none}");
}

#[tokio::test]
async fn results_and_errors_are_told() {
    let server = pets().await;
    let auth = json!({"auth": {"query": {"name": "key", "value": "hunter2"}}});
    let tools = source(&server, auth).tools().await.unwrap();
    assert_eq!(call(&tools, "getPet", json!({"petId": 1})).await.unwrap().text, r#"{"ok":true}"#);
    assert!(server.requests().pop().unwrap().starts_with("GET /pets/1?key=hunter2 "));
    assert_eq!(call(&tools, "getPet", json!({"petId": 204})).await.unwrap().text, "204 No Content without a body");
    assert_eq!(call(&tools, "getPet", json!({"petId": 8})).await.unwrap().media.len(), 1);
    let missing = call(&tools, "getPet", json!({"petId": 404})).await.unwrap_err();
    assert!(matches!(missing, ToolError::Failed(_)));
    let text = missing.to_string();
    assert!(text.starts_with("GET /pets/{petId} answered 404 Not Found: {\"e\"") && text.len() < 4200, "{text}");
    let led_away = call(&tools, "getPet", json!({"petId": 9})).await.unwrap_err().to_string();
    assert!(led_away.contains("not among the hosts") && !led_away.contains("hunter2"), "{led_away}");
    let before = server.requests().len();
    for arguments in
        [json!({}), json!({"petId": "x"}), json!({"petId": 1, "nope": 1}), json!({"petId": 1, "key": "mine"})]
    {
        assert!(matches!(call(&tools, "getPet", arguments).await, Err(ToolError::Arguments(_))));
    }
    assert_eq!(server.requests().len(), before);
}

#[tokio::test]
async fn arguments_that_the_document_does_not_tell_are_named() {
    let server = pets().await;
    let tools = source(&server, json!({})).tools().await.unwrap();
    for (name, arguments) in [
        ("getPet", json!({"petId": 1, "petNmae": "x"})),
        ("pets_replace", json!({"petId": 1, "name": "Rex", "petNmae": "x"})),
        ("sendForm", json!({"a": "x", "petNmae": "x"})),
        ("sendParts", json!({"body": {"text": "x", "petNmae": "x"}})),
    ] {
        let refused = call(&tools, name, arguments).await.unwrap_err();
        assert!(matches!(&refused, ToolError::Arguments(fault) if fault.contains("'petNmae'")), "{name}: {refused}");
    }
    assert_eq!(server.requests().len(), 1, "the document alone was asked for");
}

#[test]
fn a_body_is_as_open_as_the_document_says() {
    let body = |schema: serde_json::Value| {
        let document =
            json!({"paths": {"/a": {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}}});
        operations(&document, &|_, _| false).remove(0).schema["properties"]["body"]["additionalProperties"].clone()
    };
    let known = |more: serde_json::Value| {
        let mut schema = json!({"type": "object", "required": ["a"], "properties": {"a": {}}});
        schema.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        body(schema)
    };
    assert_eq!(known(json!({})), false);
    assert_eq!(known(json!({"nullable": true})), false);
    assert_eq!(known(json!({"additionalProperties": true})), true);
    assert_eq!(known(json!({"additionalProperties": {"type": "string"}})), json!({"type": "string"}));
    assert_eq!(known(json!({"patternProperties": {"^x-": {}}, "additionalProperties": false})), true);
    for open in [known(json!({"allOf": [{"properties": {"b": {}}}]})), body(json!({"type": "object"})), body(json!({}))]
    {
        assert_eq!(open, json!(null));
    }
}

#[tokio::test]
async fn credentials_that_come_back_are_hidden() {
    let server = Server::new(|request| {
        let sent = request.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default();
        let asked = request.split(' ').nth(1).unwrap_or_default();
        let told = |status| answer(status, &["Content-Type: text/plain"], format!("{asked} by {sent}"));
        match asked {
            "/openapi.yaml" => answer("200 OK", &["Content-Type: application/yaml"], DOCUMENT),
            path if path.starts_with("/pets/404") => {
                // The error is cut in the midst of the secret.
                let sent = format!("{}{asked} by {sent}", "x".repeat(3990));
                answer("404 Not Found", &["Content-Type: text/plain"], sent)
            }
            _ => told("200 OK"),
        }
    })
    .await;
    for auth in [
        json!({"bearer": {"token": "hunter22/x"}}),
        json!({"header": {"name": "Authorization", "value": "hunter22/x"}}),
        json!({"query": {"name": "key", "value": "hunter22/x"}}),
        json!({"basic": {"username": "bob", "password": "hunter22/x"}}),
    ] {
        let tools = source(&server, json!({"auth": auth})).tools().await.unwrap();
        let found = call(&tools, "getPet", json!({"petId": 1})).await.unwrap().text;
        let missing = call(&tools, "getPet", json!({"petId": 404})).await.unwrap_err().to_string();
        for told in [&found, &missing] {
            assert!(
                !told.contains("hunter") && !told.contains(&BASE64_STANDARD.encode("bob:hunter22")[..12]),
                "{told}"
            );
        }
        assert!(found.contains("[redacted]"), "{found}");
    }
}

#[tokio::test]
async fn operations_are_chosen_by_name_and_tag() {
    let server = pets().await;
    let names = async |more| {
        let tools = source(&server, more).tools().await.map_err(|error| error.to_string())?;
        Ok::<_, String>(tools.iter().map(|tool| tool.spec().name.clone()).collect::<Vec<_>>())
    };
    assert_eq!(names(json!({"tags": ["read"]})).await.unwrap(), ["getPet", "listPets"]);
    let some = json!({"operations": ["POST /pets", "pets.replace"], "tags": ["read"]});
    assert_eq!(names(some).await.unwrap(), ["getPet", "pets_replace", "listPets", "post__pets"]);
    assert!(names(json!({"operations": ["nope"]})).await.unwrap_err().contains("\"nope\""));
    assert!(names(json!({"tags": ["nope"]})).await.unwrap_err().contains("\"nope\""));
}

#[tokio::test]
async fn addresses_are_guarded() {
    let server = pets().await;
    let closed = source(&server, json!({"allow_private": []})).tools().await.err().unwrap().to_string();
    assert!(closed.contains("allow_private"), "{closed}");
    let mut file = tempfile();
    file.1.write_all(DOCUMENT.as_bytes()).unwrap();
    let from_file = |more| {
        source(&server, {
            let mut all = json!({"document": file.0.to_string_lossy()});
            all.as_object_mut().unwrap().extend(serde_json::Value::as_object(&more).cloned().unwrap());
            all
        })
    };
    let fault = from_file(json!({})).tools().await.err().unwrap().to_string();
    assert!(fault.contains("base_url"), "{fault}");
    let tools = from_file(json!({"base_url": server.url("/"), "allow_private": []})).tools().await.unwrap();
    assert!(call(&tools, "getPet", json!({"petId": 1})).await.unwrap_err().to_string().contains("allow_private"));
    let tools = from_file(json!({"base_url": server.url("/v1/")})).tools().await.unwrap();
    call(&tools, "getPet", json!({"petId": 1})).await.unwrap();
    assert!(server.requests().pop().unwrap().starts_with("GET /v1/pets/1 "));
    std::fs::remove_file(file.0).unwrap();
}

fn tempfile() -> (std::path::PathBuf, std::fs::File) {
    let path = std::env::temp_dir().join(format!("daybook-openapi-{}.yaml", uuid::Uuid::now_v7()));
    let file = std::fs::File::create(&path).unwrap();
    (path, file)
}

#[test]
fn settings_are_checked_at_once() {
    let fault = |more: serde_json::Value| {
        let mut all = json!({"document": "x.json"});
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        let options = serde_json::from_value::<OpenApiOptions>(all).map_err(|error| error.to_string());
        options.and_then(|options| OpenApiSource::new("s", options).map_err(|error| error.to_string())).unwrap_err()
    };
    assert!(fault(json!({"base_url": "ftp://x"})).contains("base_url"));
    assert!(fault(json!({"base_url": "https://u:p@x/"})).contains("base_url"));
    assert!(fault(json!({"allow_private": ["1.2.3.4/99"]})).contains("1.2.3.4/99"));
    assert!(fault(json!({"auth": {"basic": {"username": "a:b", "password": "c"}}})).contains("colon"));
    assert!(fault(json!({"auth": {"magic": {}}})).contains("magic"));
    let secret = fault(json!({"auth": {"bearer": {"token": "hunter2\n"}}}));
    assert!(secret.contains("auth.bearer.token") && !secret.contains("hunter2"), "{secret}");
    assert!(schemars::schema_for!(OpenApiOptions).as_value()["properties"]["auth"].is_object());
}

#[test]
fn documents_are_told_apart() {
    assert!(document::parse(r#"{"swagger": "2.0", "paths": {}}"#).unwrap_err().to_string().contains("Swagger 2"));
    assert!(document::parse("openapi: 3.1.0\npaths: {}").is_ok());
    assert!(document::parse("{openapi: 3.1.0, paths: {}}").is_ok(), "YAML may look like JSON");
    assert!(document::parse("openapi: 3.1.0").unwrap_err().to_string().contains("no paths"));
    assert!(document::parse("a: [").unwrap_err().to_string().contains("YAML"));
    let words =
        document::parse("openapi: 3.1.0\npaths: {}\nx: [NO, no, yes, on, Off, y, n, 1_000, true, False, null, 12]");
    let texts = json!(["NO", "no", "yes", "on", "Off", "y", "n", "1_000", true, false, null, 12]);
    assert_eq!(words.unwrap()["x"], texts);
    assert!(document::parse("{\"a\": ").unwrap_err().to_string().contains("JSON"));
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned()
        + &(1..20)
            .map(|n| {
                format!(
                    "k{n}: &k{n} [{}]\n",
                    vec![if n == 1 { "*a".into() } else { format!("*k{}", n - 1) }; 9].join(",")
                )
            })
            .collect::<String>();
    assert!(document::parse(&bomb).is_err());
    let server = json!({"url": "https://{region}.x.test/{v}", "variables": {"region": {"default": "eu"}, "v": {"default": "v2"}}});
    assert_eq!(document::server(&server, None).unwrap().as_str(), "https://eu.x.test/v2");
    let from = Url::parse("https://docs.x.test/api/openapi.json").unwrap();
    assert_eq!(document::server(&json!({"url": "../v1"}), Some(&from)).unwrap().as_str(), "https://docs.x.test/v1");
    assert_eq!(document::server(&json!({"url": "/v1"}), None), None);
}

#[test]
fn paths_keep_their_places() {
    let document = json!({"paths": {"/a/{x}/b": {"get": {
        "parameters": [{"name": "x", "in": "path", "required": true, "schema": {}}, {"name": "x", "in": "query", "schema": {}}],
    }}}});
    let operation = operations(&document, &|_, _| false).remove(0);
    assert_eq!(operation.schema["properties"], json!({"x": {}, "query_x": {}}));
    let path = |x: serde_json::Value| {
        let arguments = json!({"x": x}).as_object().cloned().unwrap();
        request::request(&operation, "https://h/", &arguments).map(|request| request.url.to_string())
    };
    assert_eq!(path(json!("../c?d#e")).unwrap(), "https://h/a/..%2Fc%3Fd%23e/b");
    assert_eq!(path(json!("%2e%2e")).unwrap(), "https://h/a/%252e%252e/b");
    assert_eq!(path(json!({"k": "v"})).unwrap(), "https://h/a/k,v/b");
    for dots in ["", ".", ".."] {
        assert!(matches!(path(json!(dots)), Err(ToolError::Arguments(_))), "{dots}");
    }
}

#[test]
fn names_are_plain_and_unique() {
    let mut taken = BTreeSet::new();
    let long = operation::sanitised(&"é/x".repeat(50));
    assert!(long.len() <= 64 && long.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'), "{long}");
    assert_eq!(operation::sanitised("///"), "operation");
    let name = "n".repeat(64);
    assert_eq!(unique(&name, &mut taken), name);
    let second = unique(&name, &mut taken);
    assert!(second.len() == 64 && second.ends_with("n_2"), "{second}");
}
