//! Reads an expression, and refuses what could not be evaluated, or not within bounds.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use cel::Env;
use cel::Program;
use cel::common::ast::{ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use crate::VARIABLES;

/// The longest text of an expression, in bytes.
const MAX_TEXT: usize = 2_000;

/// The most parts an expression may have: operators, calls, names and literals.
const MAX_PARTS: usize = 400;

/// How deep parts may be within each other.
const MAX_DEPTH: usize = 64;

/// The stack that reading takes at the most, whatever the text is. The parser goes deeper than what comes out of it.
const STACK: usize = 64 * 1024 * 1024;

/// What an expression may call, its operators apart.
const FUNCTIONS: [&str; 12] =
    ["size", "contains", "startsWith", "endsWith", "int", "uint", "double", "string", "bool", "bytes", "type", "dyn"];

/// What the macros are made of.
const OPERATORS: [&str; 19] = [
    operators::CONDITIONAL,
    operators::LOGICAL_AND,
    operators::LOGICAL_OR,
    operators::LOGICAL_NOT,
    operators::SUBSTRACT,
    operators::ADD,
    operators::MULTIPLY,
    operators::DIVIDE,
    operators::MODULO,
    operators::EQUALS,
    operators::NOT_EQUALS,
    operators::GREATER_EQUALS,
    operators::LESS_EQUALS,
    operators::GREATER,
    operators::LESS,
    operators::NEGATE,
    operators::INDEX,
    operators::NOT_STRICTLY_FALSE,
    operators::IN,
];

/// The language: CEL's own, without optional values.
pub(crate) static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib().with_optional_support(false)));

/// Why a text is not an expression that can be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} (at line {line}, column {column} of {text:?})")]
pub struct CompileError {
    /// The text.
    pub text: String,
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters, from 1.
    pub column: usize,
    /// What is wrong, and how to mend it.
    pub reason: String,
}

/// Which parts of a variable an expression looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Uses {
    /// None.
    #[default]
    Nothing,
    /// Those of these names.
    Names(BTreeSet<String>),
    /// All of them.
    All,
}

impl Uses {
    /// Whether the part of this name is looked at.
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::Names(names) => names.contains(name),
            Self::All => true,
        }
    }

    fn add(&mut self, name: Option<&str>) {
        match (&mut *self, name) {
            (Self::All, _) => {}
            (Self::Names(names), Some(name)) => drop(names.insert(name.to_owned())),
            (Self::Nothing, Some(name)) => *self = Self::Names(BTreeSet::from([name.to_owned()])),
            (_, None) => *self = Self::All,
        }
    }
}

/// An expression that can be evaluated.
#[derive(Debug)]
pub struct Expression {
    text: String,
    pub(crate) program: Program,
    outputs: Uses,
    state: Uses,
    pub(crate) variables: BTreeSet<String>,
}

impl Expression {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`CompileError`] with the place and the reason.
    pub fn compile(text: &str) -> Result<Self, CompileError> {
        if text.trim().is_empty() {
            return Err(error(text, 0, "the expression is empty"));
        }
        if text.len() > MAX_TEXT {
            return Err(error(text, MAX_TEXT, &format!("the expression is longer than {MAX_TEXT} bytes")));
        }
        // The parser calls itself for what is within each other.
        let read = std::thread::scope(|scope| {
            let reading = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || read(text));
            reading.ok().and_then(|thread| thread.join().ok())
        });
        read.unwrap_or_else(|| Err(error(text, 0, "the expression cannot be read: the parser gave up")))
    }

    /// The text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The steps whose outputs it looks at.
    pub fn outputs(&self) -> &Uses {
        &self.outputs
    }

    /// The keys of the session state that it looks at.
    pub fn state(&self) -> &Uses {
        &self.state
    }

    /// Whether it looks at this variable.
    pub fn uses(&self, variable: &str) -> bool {
        self.variables.contains(variable)
    }
}

fn read(text: &str) -> Result<Expression, CompileError> {
    let program = LANGUAGE.compile(text).map_err(|errors| {
        let Some(first) = errors.errors.into_iter().next() else { return error(text, 0, "it cannot be read") };
        let at = |position: isize| usize::try_from(position).unwrap_or(1).max(1);
        CompileError { text: text.to_owned(), line: at(first.pos.0), column: at(first.pos.1), reason: first.msg }
    })?;
    let mut look = Look::new(&program, text);
    look.at(program.expression())?;
    let Look { outputs, state, variables, .. } = look;
    Ok(Expression { text: text.to_owned(), outputs, state, variables, program })
}

fn error(text: &str, offset: usize, reason: &str) -> CompileError {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let mut shown = text.to_owned();
    if shown.len() > 200 {
        shown.truncate(shown.floor_char_boundary(200));
        shown.push('…');
    }
    CompileError { text: shown, line, column, reason: reason.to_owned() }
}

/// Goes through an expression without calling itself.
struct Look<'a> {
    program: &'a Program,
    text: &'a str,
    outputs: Uses,
    state: Uses,
    variables: BTreeSet<String>,
}

/// A part to look at, and what is around it.
struct Part<'a> {
    expr: &'a IdedExpr,
    depth: usize,
    /// The variables of the macro around it.
    own: Vec<&'a str>,
}

impl<'a> Look<'a> {
    fn new(program: &'a Program, text: &'a str) -> Self {
        Self { program, text, outputs: Uses::Nothing, state: Uses::Nothing, variables: BTreeSet::new() }
    }

    fn refuse(&self, expr: &IdedExpr, reason: &str) -> CompileError {
        let offset = self.program.source_info().offset_for(expr.id).map_or(0, |(start, _)| start);
        error(self.text, usize::try_from(offset).unwrap_or(0), reason)
    }

    fn at(&mut self, root: &'a IdedExpr) -> Result<(), CompileError> {
        let mut open = vec![Part { expr: root, depth: 1, own: Vec::new() }];
        let mut parts = 0;
        while let Some(part) = open.pop() {
            parts += 1;
            if parts > MAX_PARTS {
                return Err(self.refuse(root, &format!("the expression has more than {MAX_PARTS} parts")));
            }
            if part.depth > MAX_DEPTH {
                let reason =
                    format!("the expression is more than {MAX_DEPTH} levels deep: use fewer brackets or operators");
                return Err(self.refuse(root, &reason));
            }
            let inner = self.part(&part)?;
            let depth = part.depth + 1;
            open.extend(inner.into_iter().map(|(expr, own)| Part { expr, depth, own }));
        }
        Ok(())
    }

    /// Notes what a part uses; gives the parts in it, with the variables of the macros around them.
    fn part(&mut self, part: &Part<'a>) -> Result<Vec<(&'a IdedExpr, Vec<&'a str>)>, CompileError> {
        let own = &part.own;
        let within = |inner: Vec<&'a IdedExpr>| inner.into_iter().map(|expr| (expr, own.clone())).collect();
        Ok(match &part.expr.expr {
            Expr::Ident(name) => {
                self.name(part, name, None)?;
                Vec::new()
            }
            Expr::Select(select) => match &select.operand.expr {
                Expr::Ident(name) => {
                    self.name(part, name, Some(&select.field))?;
                    Vec::new()
                }
                _ => within(vec![&select.operand]),
            },
            Expr::Call(call) => {
                let known =
                    FUNCTIONS.contains(&call.func_name.as_str()) || OPERATORS.contains(&call.func_name.as_str());
                if !known {
                    let reason =
                        format!("there is no function {:?}; there are: {}", call.func_name, FUNCTIONS.join(", "));
                    return Err(self.refuse(part.expr, &reason));
                }
                if let (operators::INDEX, [operand, index]) = (call.func_name.as_str(), call.args.as_slice())
                    && let (Expr::Ident(name), Expr::Literal(LiteralValue::String(key))) = (&operand.expr, &index.expr)
                {
                    self.name(part, name, Some(key.inner()))?;
                    return Ok(Vec::new());
                }
                within(call.target.as_deref().into_iter().chain(&call.args).collect())
            }
            Expr::List(list) => within(list.elements.iter().collect()),
            Expr::Map(map) => within(map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect()),
            Expr::Comprehension(inner) => self.comprehension(part, inner)?,
            Expr::Literal(_) => Vec::new(),
            Expr::Struct(_) | Expr::Unspecified => {
                return Err(self.refuse(part.expr, "typed objects cannot be made: write a map, {\"key\": value}"));
            }
        })
    }

    fn comprehension(
        &mut self,
        part: &Part<'a>,
        inner: &'a ComprehensionExpr,
    ) -> Result<Vec<(&'a IdedExpr, Vec<&'a str>)>, CompileError> {
        if !part.own.is_empty() {
            return Err(
                self.refuse(part.expr, "a macro (all, exists, exists_one, filter, map) cannot be within another")
            );
        }
        if !is_path(&inner.iter_range.expr) {
            let reason = "a macro (all, exists, exists_one, filter, map) goes over a variable or a part of one, such as \
                          state.items, not over what was made of it";
            return Err(self.refuse(part.expr, reason));
        }
        let own: Vec<&str> =
            [&inner.iter_var, &inner.accu_var].into_iter().chain(&inner.iter_var2).map(String::as_str).collect();
        let body = [&inner.accu_init, &inner.loop_cond, &inner.loop_step, &inner.result];
        let body = body.into_iter().map(|expr| (expr, own.clone()));
        Ok(body.chain([(&inner.iter_range, Vec::new())]).collect())
    }

    fn name(&mut self, part: &Part<'_>, name: &str, key: Option<&str>) -> Result<(), CompileError> {
        // As an absolute name it is written with a dot in front.
        if part.own.contains(&name) {
            return Ok(());
        }
        if !VARIABLES.contains(&name) {
            let reason = format!("there is no variable {name:?}; there are: {}", VARIABLES.join(", "));
            return Err(self.refuse(part.expr, &reason));
        }
        self.variables.insert(name.to_owned());
        match name {
            "outputs" => self.outputs.add(key),
            "state" => self.state.add(key),
            _ => {}
        }
        Ok(())
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// Whether it is a variable or a part of one.
fn is_path(mut expr: &Expr) -> bool {
    loop {
        expr = match expr {
            Expr::Ident(_) => return true,
            Expr::Select(select) if !select.test => &select.operand.expr,
            Expr::Call(call) if call.func_name == operators::INDEX => match call.args.as_slice() {
                [operand, index] if matches!(index.expr, Expr::Literal(_)) => &operand.expr,
                _ => return false,
            },
            _ => return false,
        };
    }
}
