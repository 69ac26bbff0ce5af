//! Models in the file: their options, their keys, and what is wrong with them.

use super::*;

#[test]
fn models_that_cannot_be_called_have_a_line() {
    let model = |setting: &str| format!("models:\n  a:\n    provider: openai\n    id: x\n    {setting}\n");
    for url in ["not a url", "ftp://x", "https://u:hush@x"] {
        let shown = mistake(&model(&format!("base_url: {url}")));
        assert!(shown.starts_with("daybook.yaml:5:15: base_url") && !shown.contains("hush"), "{shown}");
    }
    assert_eq!(
        mistake(&model("keep_alive: 5m")),
        "daybook.yaml:5:17: keep_alive of model `x`: openai has no such option, only ollama has it"
    );
    assert!(
        mistake(&model("reasoning: {budget_tokens: 5}"))
            .starts_with("daybook.yaml:5:16: reasoning of model `x`: chat completions")
    );
    assert!(mistake(&model("max_tokens: 0")).starts_with("daybook.yaml:5:17: max_tokens: it must be at least 1"));
    assert_eq!(mistake(&model("retries: 4294967295")), "daybook.yaml:5:14: retries: 20 are the most");
    assert!(mistake(&model("api_key: \"a\\nb\"")).starts_with("daybook.yaml:5:14: the API key"));
    parse(&model("retries: 20")).unwrap();
}

#[test]
fn every_provider_is_read_with_its_options_and_its_key() {
    let text = "
models:
  a:
    provider: anthropic
    id: claude-x
    max_tokens: 9000
    prompt_cache: 1h
    reasoning:
      budget_tokens: 2000
      show: false
  b:
    provider: gemini
    id: gemini-x
    reasoning: {effort: low}
  c:
    provider: openai-responses
    id: gpt-x
    prompt_cache_key: k
  d:
    provider: ollama
    id: qwen3
    keep_alive: '-1'
    context_tokens: 4096
  e:
    provider: anthropic
    id: claude-x
    base_url: http://gateway.example
";
    let definitions = parse(text).unwrap();
    assert!(fits_the_schema(text));
    let built = definitions.build_models().unwrap();
    let shown: Vec<_> = built.values().map(|model| (&*model.info().provider, &*model.info().class)).collect();
    let claude = ("Anthropic", "Claude");
    assert_eq!(shown, [claude, ("Google", "Gemini"), ("OpenAI", "OpenAIResponses"), ("Ollama", "Ollama"), claude]);
    let options = |at: usize| match &definitions.models[at].1 {
        ModelDefinition::Served(options) => options.clone(),
        other => panic!("{other:?}"),
    };
    let key = |at: usize| options(at).api_key.map(|key| key.expose_secret().to_owned());
    assert_eq!([key(0), key(1), key(2)], ["ant-hush", "AI-hush", "sk-hush"].map(|key| Some(key.to_owned())));
    assert_eq!([key(3), key(4)], [None, None], "another server is not sent the provider's key unasked");
    let (claude, local) = (options(0), options(3));
    let reasoning = claude.reasoning.unwrap();
    assert_eq!((claude.max_tokens, reasoning.budget_tokens, reasoning.show), (Some(9000), Some(2000), Some(false)));
    assert_eq!((local.keep_alive.as_deref(), local.context_tokens), (Some("-1"), Some(4096)));
    assert_eq!(local.base_url, "http://localhost:11434");
}

#[test]
fn options_a_provider_does_not_have_and_keys_that_are_not_there_have_a_line() {
    let model =
        |provider: &str, setting: &str| format!("models:\n  a:\n    provider: {provider}\n    id: x\n    {setting}\n");
    assert_eq!(
        mistake(&model("gemini", "prompt_cache: 5m")),
        "daybook.yaml:5:19: prompt_cache of model `x`: gemini has no such option, only anthropic has it"
    );
    assert!(
        mistake(&model("anthropic", "reasoning: {budget_tokens: 5}")).starts_with("daybook.yaml:5:16: reasoning of")
    );
    assert!(mistake(&model("anthropic", "prompt_cache: 2h")).contains("expected one of 5m, 1h"));
    assert!(mistake(&model("ollama", "reasoning: {effort: much}")).contains("expected one of none, minimal, low"));
    assert!(mistake(&model("ollama", "base_url: ftp://x")).starts_with("daybook.yaml:5:15: base_url"));
    assert!(mistake(&model("demo", "max_tokens: 5")).contains("the scripted demo model has no such setting"));
    let text = model("gemini", "retries: 1");
    let none = Definitions::parse(Path::new("f"), &text, &HashMap::new(), &built_in_tools()).map(|_| ()).unwrap_err();
    let expected = "f:3:5: api_key is missing, and so is the environment's variable GEMINI_API_KEY or GOOGLE_API_KEY";
    assert_eq!(none.to_string(), expected);
    let host = [("OLLAMA_HOST".to_owned(), "gpu:9999".to_owned())].into();
    let local = Definitions::parse(Path::new("f"), &model("ollama", "retries: 1"), &host, &built_in_tools()).unwrap();
    let ModelDefinition::Served(options) = &local.models[0].1 else { panic!("not served") };
    assert_eq!(options.base_url, "http://gpu:9999");
}
