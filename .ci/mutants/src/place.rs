//! Puts mutants into a source file, each behind its switch.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;

use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::mutant::{Genre, Mutant};

/// A file with mutants in it.
pub struct Placed {
    /// The line of a mutant begins with its number in a comment, so that an error of the compiler
    /// names it.
    pub text: String,
    pub placed: BTreeSet<usize>,
    /// Those that are no program.
    pub refused: BTreeSet<usize>,
}

/// Puts as many of the mutants in as can be switched.
pub fn place(text: &str, mutants: &[&Mutant]) -> Result<Placed, Box<dyn Error>> {
    let parsed = syn::parse_file(text)?;
    let mut finder = Finder {
        text,
        lines: line_starts(text),
        mutants,
        constants: BTreeMap::new(),
        edits: Vec::new(),
        refused: BTreeSet::new(),
    };
    for item in &parsed.items {
        if let syn::Item::Const(constant) = item {
            finder.constant(constant);
        }
    }
    finder.visit_file(&parsed);
    let mut edits = finder.edits;
    // What encloses comes first; an arm left out encloses its guard.
    edits.sort_by_key(|it| (it.start, Reverse(it.end), !matches!(it.kind, Kind::Arm)));
    let placed = edits
        .iter()
        .flat_map(|it| it.choices.iter().map(|choice| choice.0))
        .collect();
    Ok(Placed {
        text: render(text, &edits, 0, text.len()),
        placed,
        refused: finder.refused,
    })
}

/// A place of the text that has mutants.
struct Edit {
    start: usize,
    end: usize,
    kind: Kind,
    /// Mutants, and what stands there where one is on.
    choices: Vec<(usize, String)>,
}

enum Kind {
    /// One expression in place of another.
    Expression,
    /// The begin of a function's body.
    Body,
    /// A guard that is false where the arm is left out; before it may be no guard.
    Arm,
}

struct Finder<'a> {
    text: &'a str,
    lines: Vec<usize>,
    mutants: &'a [&'a Mutant],
    /// By their names: mutants, and what stands where one is used.
    constants: BTreeMap<String, Vec<(usize, String)>>,
    edits: Vec<Edit>,
    refused: BTreeSet<usize>,
}

impl Finder<'_> {
    fn offset(&self, (line, column): (usize, usize)) -> usize {
        let start = self.lines[line - 1];
        let rest = &self.text[start..];
        start
            + rest
                .char_indices()
                .nth(column - 1)
                .map_or(rest.len(), |it| it.0)
    }

    fn range(&self, span: Span) -> (usize, usize) {
        let place = |at: LineColumn| self.offset((at.line, at.column + 1));
        (place(span.start()), place(span.end()))
    }

    fn at(&self, genre: Genre, span: (usize, usize)) -> Vec<&Mutant> {
        let is = |it: &&&Mutant| {
            it.genre == genre && (self.offset(it.start), self.offset(it.end)) == span
        };
        self.mutants.iter().filter(is).copied().collect()
    }

    fn add(&mut self, (start, end): (usize, usize), kind: Kind, choices: Vec<(usize, String)>) {
        if !choices.is_empty() {
            self.edits.push(Edit {
                start,
                end,
                kind,
                choices,
            });
        }
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let (Some(first), Some(last)) = (block.stmts.first(), block.stmts.last()) else {
            return;
        };
        // The type of `impl Trait` is the body's own.
        if self.source(&signature.output).contains("impl ") {
            return;
        }
        let span = (self.range(first.span()).0, self.range(last.span()).1);
        let choices = self.at(Genre::Value, span);
        let choices = choices
            .iter()
            .map(|it| (it.id, it.replacement.clone()))
            .collect();
        let open = self.range(block.brace_token.span.open()).1;
        self.add((open, open), Kind::Body, choices);
    }

    /// A constant is worked out before any switch is there, so what is switched is its use.
    fn constant(&mut self, node: &syn::ItemConst) {
        let (start, end) = self.range(node.expr.span());
        let kind = self.source(&node.ty).to_owned();
        let inside = |it: &&&Mutant| {
            it.genre == Genre::BinaryOperator
                && start <= self.offset(it.start)
                && self.offset(it.end) <= end
        };
        let changed = |it: &&Mutant| {
            let (before, after) = (self.offset(it.start), self.offset(it.end));
            let (before, after) = (&self.text[start..before], &self.text[after..end]);
            let value = format!("{before}{}{after}", it.replacement);
            (it.id, format!("const IT: {kind} = {value}; IT"))
        };
        let choices: Vec<_> = self.mutants.iter().filter(inside).map(changed).collect();
        if !choices.is_empty() {
            self.constants.insert(node.ident.to_string(), choices);
        }
    }

    fn source(&self, node: &impl Spanned) -> &str {
        let (start, end) = self.range(node.span());
        &self.text[start..end]
    }
}

impl<'a> Visit<'a> for Finder<'_> {
    fn visit_expr_binary(&mut self, node: &'a syn::ExprBinary) {
        let mutants = self.at(Genre::BinaryOperator, self.range(node.op.span()));
        if is_let(&node.left) || is_let(&node.right) {
            // Only `&&` joins what binds names.
            let ids: Vec<_> = mutants.iter().map(|it| it.id).collect();
            self.refused.extend(ids);
        } else {
            let (left, right) = (self.source(&node.left), self.source(&node.right));
            let with = |it: &&Mutant| (it.id, format!("{left} {} {right}", it.replacement));
            let choices = mutants.iter().map(with).collect();
            self.add(self.range(node.span()), Kind::Expression, choices);
        }
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'a syn::ExprUnary) {
        let mutants = self.at(Genre::UnaryOperator, self.range(node.op.span()));
        let bare = self.source(&*node.expr).to_owned();
        let choices = mutants.iter().map(|it| (it.id, bare.clone())).collect();
        self.add(self.range(node.span()), Kind::Expression, choices);
        visit::visit_expr_unary(self, node);
    }

    fn visit_arm(&mut self, node: &'a syn::Arm) {
        let guard = node.guard.as_ref().map(|it| &*it.1);
        if !guard.is_some_and(is_let) {
            let left_out = self.at(Genre::Arm, self.range(node.span()));
            let left_out = left_out.iter().map(|it| (it.id, String::new())).collect();
            let after = self.range(node.pat.span()).1;
            let place = guard.map_or((after, after), |it| self.range(it.span()));
            self.add(place, Kind::Arm, left_out);
            if guard.is_some() {
                let other = self.at(Genre::Guard, place);
                let other = other
                    .iter()
                    .map(|it| (it.id, it.replacement.clone()))
                    .collect();
                self.add(place, Kind::Expression, other);
            }
        }
        visit::visit_arm(self, node);
    }

    fn visit_item_fn(&mut self, node: &'a syn::ItemFn) {
        if node.sig.constness.is_none() {
            self.body(&node.sig, &node.block);
            visit::visit_item_fn(self, node);
        }
    }

    fn visit_impl_item_fn(&mut self, node: &'a syn::ImplItemFn) {
        if node.sig.constness.is_none() {
            self.body(&node.sig, &node.block);
            visit::visit_impl_item_fn(self, node);
        }
    }

    fn visit_trait_item_fn(&mut self, node: &'a syn::TraitItemFn) {
        if let Some(block) = &node.default {
            self.body(&node.sig, block);
        }
        visit::visit_trait_item_fn(self, node);
    }

    fn visit_expr_path(&mut self, node: &'a syn::ExprPath) {
        let name = node.path.get_ident().map(|it| it.to_string());
        if let Some(choices) = name.and_then(|it| self.constants.get(&it)).cloned() {
            self.add(self.range(node.span()), Kind::Expression, choices);
        }
    }

    // No switch is there while the compiler works.
    fn visit_item_const(&mut self, _: &'a syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'a syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'a syn::ImplItemConst) {}
    fn visit_type_array(&mut self, _: &'a syn::TypeArray) {}
    fn visit_expr_repeat(&mut self, node: &'a syn::ExprRepeat) {
        self.visit_expr(&node.expr);
    }
}

/// Whether it binds names, and so cannot stand by itself.
fn is_let(node: &syn::Expr) -> bool {
    match node {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(it) if matches!(it.op, syn::BinOp::And(_)) => {
            is_let(&it.left) || is_let(&it.right)
        }
        _ => false,
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0)
        .chain(text.match_indices('\n').map(|it| it.0 + 1))
        .collect()
}

/// The text from `start` to `end`, with the edits in it.
fn render(text: &str, edits: &[Edit], start: usize, end: usize) -> String {
    let (mut out, mut at, mut next) = (String::new(), start, 0);
    while let Some(edit) = edits.get(next) {
        let rest = &edits[next + 1..];
        let within = |it: &&Edit| it.start < edit.end && it.end <= edit.end;
        let inner = &rest[..rest.iter().take_while(within).count()];
        out += &text[at..edit.start];
        out += &edit.render(&render(text, inner, edit.start, edit.end));
        at = edit.end;
        next += 1 + inner.len();
    }
    out + &text[at..end]
}

impl Edit {
    /// `inner` is what stands there where no mutant is on.
    fn render(&self, inner: &str) -> String {
        let choices = self.choices.iter();
        match self.kind {
            Kind::Expression => {
                let arm = |(id, code): &(usize, String)| {
                    let code = code.replace('\n', " ");
                    format!("/*#{id}*/ {id} => {{ {code} }}\n")
                };
                let arms: String = choices.clone().map(arm).collect();
                let ids: Vec<_> = choices.map(|it| it.0).collect();
                format!("(match crate::mutant(&{ids:?}) {{\n{arms}_ => {{ {inner} }} }})")
            }
            Kind::Body => {
                let line = |(id, value): &(usize, String)| {
                    format!("\n/*#{id}*/ if crate::mutant(&[{id}]) != 0 {{ return {value}; }}\n")
                };
                choices.map(line).collect()
            }
            Kind::Arm => {
                let ids: Vec<_> = choices.map(|it| it.0).collect();
                let begin = if self.start == self.end { " if " } else { "" };
                let other = if self.start == self.end {
                    String::new()
                } else {
                    format!(" && ({inner})")
                };
                format!(
                    "{begin}\n/*#{}*/ crate::mutant(&{ids:?}) == 0{other}\n",
                    ids[0]
                )
            }
        }
    }
}
