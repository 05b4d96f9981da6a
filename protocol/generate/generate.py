#!/usr/bin/env python3
"""Writes protocol/src/generated/ from the message schemas inside Apache Kafka's own jars.

Usage: generate.py SCHEMA_DIR OUT_DIR
SCHEMA_DIR holds the unpacked `common/**/*.json` of the kafka-clients, kafka-metadata, kafka-raft, *-coordinator jars
(`scripts/generate-messages` fetches them with Maven). One Rust module a message: plain structs, a decoder that
trusts no length, an encoder that cannot fail. Only field names, types and version ranges are taken over.
"""
import json, re, sys
from pathlib import Path

SCALARS = {
    "bool": ("bool", "bool"), "int8": ("i8", "i8"), "int16": ("i16", "i16"), "uint16": ("u16", "u16"),
    "int32": ("i32", "i32"), "uint32": ("u32", "u32"), "int64": ("i64", "i64"), "float64": ("f64", "f64"), "uuid": ("Uuid", "uuid"),
}
KEYWORDS = {"type", "match", "loop", "self", "ref", "move", "use", "mod", "fn", "in", "as", "box", "final"}
MAX = 32767


def load(path):
    lines = [l for l in path.read_text().splitlines() if not l.strip().startswith("//")]
    return json.loads("\n".join(re.sub(r'^((?:[^"]|"[^"]*")*?)//.*$', r"\1", l) for l in lines))


def snake(name):
    s = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name)
    s = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", s).lower()
    return s + "_" if s in KEYWORDS else s


def versions(text):
    """(low, high) inclusive, or None for "none"."""
    if text is None or text == "none":
        return None
    if text.endswith("+"):
        return (int(text[:-1]), MAX)
    if "-" in text:
        a, b = text.split("-")
        return (int(a), int(b))
    return (int(text), int(text))


def condition(rng, valid):
    """A Rust condition that `version` is in rng, given that it is in valid; True/False where it always/never is."""
    if rng is None or rng[1] < valid[0] or rng[0] > valid[1]:
        return False
    parts = []
    if rng[0] > valid[0]:
        parts.append(f"version >= {rng[0]}")
    if rng[1] < valid[1]:
        parts.append(f"version <= {rng[1]}")
    return True if not parts else " && ".join(parts)


class Field:
    def __init__(self, spec, message, parent_versions):
        self.name = snake(spec["name"])
        self.type = spec["type"].strip()
        self.versions = versions(spec.get("versions", "0+"))
        self.nullable = versions(spec.get("nullableVersions"))
        self.tagged = versions(spec.get("taggedVersions"))
        self.tag = spec.get("tag")
        self.default = spec.get("default")
        self.flexible_override = spec.get("flexibleVersions")
        self.message = message
        self.array = self.type.startswith("[]")
        self.element = self.type[2:] if self.array else self.type
        if "fields" in spec:
            message.add_struct(self.element, spec["fields"], self.versions)

    def is_struct(self):
        return self.element not in SCALARS and self.element not in ("string", "bytes", "records")

    def base(self):
        if self.element in SCALARS:
            return SCALARS[self.element][0]
        return {"string": "String", "bytes": "Bytes", "records": "Bytes"}.get(self.element, self.element)

    def rust(self):
        t = f"Vec<{self.base()}>" if self.array else self.base()
        return f"Option<{t}>" if self.nullable else t

    def default_value(self):
        d = self.default
        if self.nullable:
            if d in (None, "null"):
                # Kafka: a nullable field without "default": "null" starts out empty, not null.
                return "Some(Default::default())" if d is None else "None"
            return f"Some({self.literal(d)})"
        if d is None or d == "":
            return "Default::default()"
        return self.literal(d)

    def literal(self, d):
        if self.array:
            return "Vec::new()"
        if self.element == "string":
            return f'String::from("{d}")' if d else "String::new()"
        if self.element == "bool":
            return str(d).lower()
        if self.element == "uuid":
            return "Uuid::nil()"
        if self.element == "float64":
            return f"{float(d)}"
        if self.element in SCALARS:
            return f"{int(str(d), 0)}"
        return "Default::default()"

    def trivially_default(self):
        return self.default_value() in ("Default::default()", "None", "0", "false", "0.0", "String::new()", "Vec::new()", "Uuid::nil()")

    def differs(self, place):
        """Condition that the value is not its default (a tagged field is written only then)."""
        d = self.default_value()
        if d == "None":
            return f"{place}.is_some()"
        if d == "Some(Default::default())" and self.is_struct() and not self.array:
            return f"{place} != Some({self.base()}::default())"
        if d == "Some(Default::default())":
            return f"{place}.as_ref().is_none_or(|value| !value.is_empty())"
        if self.array or self.element in ("string", "bytes") and d in ("Default::default()", "String::new()"):
            return f"!{place}.is_empty()"
        if self.is_struct():
            return f"{place} != {self.base()}::default()"
        if self.element == "bool":
            return f"!{place}" if d == "true" else place
        zero = {"uuid": "Uuid::nil()", "float64": "0.0"}.get(self.element, "0")
        return f"{place} != {zero if d == 'Default::default()' else d}"


class Message:
    def __init__(self, spec, path):
        self.name = spec["name"]
        self.spec = spec
        self.path = path
        self.kind = spec["type"]
        self.api_key = spec.get("apiKey")
        self.valid = versions(spec["validVersions"])
        self.flexible = versions(spec.get("flexibleVersions", "none"))
        self.unstable = spec.get("latestVersionUnstable", False)
        self.structs = {}
        self.order = []
        for s in spec.get("commonStructs", []):
            self.add_struct(s["name"], s["fields"], versions(s.get("versions", "0+")))
        self.add_struct(self.name, spec["fields"], self.valid)

    def add_struct(self, name, fields, rng):
        self.order.append(name)
        self.structs[name] = (None, rng)
        self.structs[name] = ([Field(f, self, rng) for f in fields], rng)

    def flex(self, field=None):
        """Rust expression: is this version flexible (for this field)?"""
        rng = versions(field.flexible_override) if field is not None and field.flexible_override else self.flexible
        c = condition(rng, self.valid)
        return {True: "true", False: "false"}.get(c, c)

    # ---- decoding
    def read_scalar(self, f):
        e = f.element
        if e in SCALARS:
            return f"r.{SCALARS[e][1]}()?"
        return f"{f.base()}::decode_part(r, version)?"

    def read(self, f, tagged=False):
        flex = self.flex(f)
        null = condition(f.nullable, self.valid) if f.nullable else False
        nul = {True: "true", False: "false"}.get(null, null)
        e = f.element
        if f.array:
            inner = f"r.string({flex})?" if e == "string" else f"r.bytes({flex})?" if e in ("bytes", "records") else self.read_scalar(f)
            expr = f"r.array({flex}, {nul}, |r| Ok({inner}))?"
            return expr if f.nullable else f"{expr}.unwrap_or_default()"
        if e in ("string", "bytes", "records"):
            fn = "string" if e == "string" else "bytes"
            if f.nullable:
                return f"r.nullable_{fn}({flex}, {nul})?"
            return f"r.{fn}({flex})?"
        if f.is_struct() and f.nullable:
            if null is False:
                return f"Some({self.read_scalar(f)})"
            # Whether it is there: a byte that is -1 or 1, but in a tagged field a varint that is 0 or 1.
            absent = "r.unsigned_varint()? == 0" if tagged else "r.i8()? < 0"
            body = f"if {absent} {{ None }} else {{ Some({self.read_scalar(f)}) }}"
            return body if null is True else f"if {null} {{ {body} }} else {{ Some({self.read_scalar(f)}) }}"
        return self.read_scalar(f)

    # ---- encoding
    def write(self, f, place, tagged=False):
        flex = self.flex(f)
        e = f.element
        nul = condition(f.nullable, self.valid) if f.nullable else False
        nul = {True: "true", False: "false"}.get(nul, nul)
        if f.array:
            if e == "string":
                each = f"|w, item| w.string(item, {flex})"
            elif e in ("bytes", "records"):
                each = f"|w, item| w.bytes(item, {flex})"
            elif e in SCALARS:
                each = f"|w, item| w.{SCALARS[e][1]}(*item)"
            else:
                each = "|w, item| item.encode_part(w, version)"
            if f.nullable:
                return f"w.nullable_array({place}.as_deref(), {flex}, {nul}, {each});"
            return f"w.array(&{place}, {flex}, {each});"
        if e in ("string", "bytes", "records"):
            fn = "string" if e == "string" else "bytes"
            if f.nullable:
                return f"w.nullable_{fn}({place}.as_deref(), {flex}, {nul});"
            return f"w.{fn}(&{place}, {flex});"
        if f.is_struct():
            if f.nullable:
                there, absent = ("w.unsigned_varint(1)", "w.unsigned_varint(0)") if tagged else ("w.i8(1)", "w.i8(-1)")
                some = f"{{ {f'{there};' if nul == 'true' else '' if nul == 'false' else f'if {nul} {{ {there}; }}'} value.encode_part(w, version); }}"
                none = absent if nul == "true" else f"{f.base()}::default().encode_part(w, version)"
                if nul not in ("true", "false"):
                    none = f"{{ if {nul} {{ {absent}; }} else {{ {none}; }} }}"
                return f"match &{place} {{ Some(value) => {some} None => {none}, }}"
            return f"{place}.encode_part(w, version);"
        return f"w.{SCALARS[e][1]}({place});"

    def tagged_in(self, f):
        return condition(f.tagged, self.valid) if f.tagged else False

    def struct_code(self, name):
        fields, rng = self.structs[name]
        out = []
        trivial = all(f.trivially_default() for f in fields)
        derives = "Debug, Clone, PartialEq" + (", Default" if trivial else "")
        out.append(f"#[derive({derives})]\npub struct {name} {{")
        out += [f"    pub {f.name}: {f.rust()}," for f in fields]
        out.append("}\n")
        if not trivial:
            out.append(f"impl Default for {name} {{\n    fn default() -> Self {{\n        Self {{")
            out += [f"            {f.name}: {f.default_value()}," for f in fields]
            out.append("        }\n    }\n}\n")
        flex = self.flex()
        out.append(f"impl {name} {{")
        out.append("    pub(crate) fn decode_part(r: &mut Reader, version: i16) -> Result<Self, WireError> {")
        out.append("        let _ = version;")
        out.append("        let mut message = Self::default();")
        tagged = []
        for f in fields:
            present = condition(f.versions, self.valid)
            tag = self.tagged_in(f)
            if present is False:
                continue
            if tag is not False:
                tagged.append(f)
                if tag is True:
                    continue
                # untagged in the versions before it became tagged
                untagged = [c for c in ([present] if present is not True else []) + [f"!({tag})"]]
                present = " && ".join(untagged)
                if f.tagged[0] <= f.versions[0]:
                    continue
            code = f"message.{f.name} = {self.read(f)};"
            out.append(f"        {code}" if present is True else f"        if {present} {{ {code} }}")
        if flex != "false":
            if tagged:
                arms = "".join(f"{f.tag} => message.{f.name} = {self.read(f, tagged=True)}, " for f in tagged)
                read_tags = f"r.tagged(|r, tag| {{ match tag {{ {arms}_ => return Ok(false), }} Ok(true) }})?;"
            else:
                read_tags = "r.skip_tagged()?;"
            out.append(f"        {read_tags}" if flex == "true" else f"        if {flex} {{ {read_tags} }}")
        out.append("        Ok(message)\n    }\n")
        out.append("    pub(crate) fn encode_part(&self, w: &mut Writer, version: i16) {")
        out.append("        let _ = (&w, version);")
        for f in fields:
            present = condition(f.versions, self.valid)
            tag = self.tagged_in(f)
            if present is False:
                continue
            if tag is not False:
                if tag is True or f.tagged[0] <= f.versions[0]:
                    continue
                present = " && ".join(([present] if present is not True else []) + [f"!({tag})"])
            code = self.write(f, f"self.{f.name}")
            out.append(f"        {code}" if present is True else f"        if {present} {{ {code} }}")
        if flex != "false":
            body = []
            if tagged:
                body.append("let mut tags = w.tags();")
                for f in sorted(tagged, key=lambda f: f.tag):
                    tag = self.tagged_in(f)
                    cond = f.differs(f"self.{f.name}")
                    if tag is not True:
                        cond = f"{tag} && {cond}"
                    body.append(f"if {cond} {{ tags.field({f.tag}, |w| {{ {self.write(f, f'self.{f.name}', tagged=True)} }}); }}")
                body.append("tags.finish(w);")
            else:
                body.append("w.no_tags();")
            text = " ".join(body)
            out.append(f"        {text}" if flex == "true" else f"        if {flex} {{ {text} }}")
        out.append("    }\n}\n")
        return "\n".join(out)

    def code(self):
        low, high = self.valid
        flexible = self.flexible[0] if self.flexible else MAX
        text = "\n".join(self.struct_code(n) for n in self.order)
        uses = ["use crate::wire::{Message, Reader, WireError, Writer};"]
        if re.search(r"\bBytes\b", text):
            uses.insert(0, "use bytes::Bytes;")
        if "Uuid" in text:
            uses.append("use uuid::Uuid;")
        text += f"""
impl Message for {self.name} {{
    const NAME: &'static str = "{self.name}";
    const KEY: i16 = {self.api_key if self.api_key is not None else -1};
    const VERSIONS: (i16, i16) = ({low}, {high});
    const FLEXIBLE: i16 = {flexible};
    fn decode(r: &mut Reader, version: i16) -> Result<Self, WireError> {{
        Self::check_version(version)?;
        Self::decode_part(r, version)
    }}
    fn encode(&self, w: &mut Writer, version: i16) {{
        self.encode_part(w, version);
    }}
}}
"""
        if self.kind == "request":
            response = self.name.replace("Request", "Response")
            text += f"""
impl crate::wire::Request for {self.name} {{
    type Response = super::{snake(response)}::{response};
}}
"""
        return "//! Generated by protocol/generate/generate.py; do not edit.\n" + "\n".join(uses) + "\n\n" + text


HEAD = "//! Generated by protocol/generate/generate.py; do not edit."


def api(message):
    return message.name.removesuffix("Request")


def match_arms(items, arm):
    return [f"            {arm(item)}," for item in items]


def api_key_code(apis):
    """The enum ApiKey and what the schemas say about each API."""
    lines = ["", "/// Kafka's API keys.", "#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]",
             "#[repr(i16)]", "pub enum ApiKey {"]
    lines += [f"    {api(m)} = {m.api_key}," for m in apis]
    lines += ["}", "", "/// (key, lowest version, highest stable version, highest version, first flexible version) of every API in Kafka's schemas.",
              "pub const SCHEMA_APIS: &[(ApiKey, i16, i16, i16, i16)] = &["]
    for m in apis:
        high = m.valid[1]
        lines.append(f"    (ApiKey::{api(m)}, {m.valid[0]}, {high - 1 if m.unstable else high}, {high}, {flexible(m)}),")
    lines += ["];", "", "impl ApiKey {", "    /// The API of a key on the wire.",
              "    pub fn from_code(code: i16) -> Option<ApiKey> {", "        Some(match code {"]
    lines += match_arms(apis, lambda m: f"{m.api_key} => ApiKey::{api(m)}")
    lines += ["            _ => return None,", "        })", "    }", "", "    /// Kafka's name of the API, e.g. `Produce`.",
              "    pub fn name(self) -> &'static str {", "        match self {"]
    lines += match_arms(apis, lambda m: f'ApiKey::{api(m)} => "{api(m)}"')
    lines += ["        }", "    }", "", "    /// The first flexible version (KIP-482); `i16::MAX` where there is none.",
              "    pub fn flexible_since(self) -> i16 {", "        match self {"]
    lines += match_arms(apis, lambda m: f"ApiKey::{api(m)} => {flexible(m)}")
    return lines + ["        }", "    }", "}", ""]


def flexible(message):
    return message.flexible[0] if message.flexible else MAX


def metadata_record_code(records):
    """The metadata records as one enum."""
    variant = lambda m: m.name.removesuffix("Record")
    lines = ["/// Any record of `__cluster_metadata`, by its api key.", "#[derive(Debug, Clone, PartialEq)]", "pub enum MetadataRecord {"]
    lines += [f"    {variant(m)}(metadata::{m.name})," for m in records]
    lines += ["}", "", "impl MetadataRecord {", "    /// The record type's key on disk.", "    pub fn key(&self) -> i16 {", "        match self {"]
    lines += match_arms(records, lambda m: f"MetadataRecord::{variant(m)}(_) => {m.api_key}")
    lines += ["        }", "    }", "", "    /// The highest version this schema knows.", "    pub fn highest_version(&self) -> i16 {", "        match self {"]
    lines += match_arms(records, lambda m: f"MetadataRecord::{variant(m)}(_) => {m.valid[1]}")
    lines += ["        }", "    }", "",
              "    pub(crate) fn decode_body(key: i16, r: &mut crate::wire::Reader, version: i16) -> Result<Option<Self>, crate::wire::WireError> {",
              "        use crate::wire::Message as _;", "        Ok(Some(match key {"]
    lines += match_arms(records, lambda m: f"{m.api_key} => MetadataRecord::{variant(m)}(metadata::{m.name}::decode(r, version)?)")
    lines += ["            _ => return Ok(None),", "        }))", "    }", "",
              "    pub(crate) fn encode_body(&self, w: &mut crate::wire::Writer, version: i16) {",
              "        use crate::wire::Message as _;", "        match self {"]
    lines += match_arms(records, lambda m: f"MetadataRecord::{variant(m)}(m) => m.encode(w, version)")
    lines += ["        }", "    }", "}", ""]
    for m in records:
        lines += [f"impl From<metadata::{m.name}> for MetadataRecord {{", f"    fn from(record: metadata::{m.name}) -> Self {{",
                  f"        MetadataRecord::{variant(m)}(record)", "    }", "}", ""]
    return lines


def any_code(apis):
    """The enums AnyRequest and AnyResponse: for tools, fuzzers and tests, which do not know the API beforehand."""
    lines = [HEAD, "use super::{ApiKey, messages};", "use crate::wire::{Message, Reader, WireError, Writer};", ""]
    for kind in ("Request", "Response"):
        name = f"Any{kind}"
        lines += [f"/// Any {kind.lower()}, where the API is known only at run time.", "#[derive(Debug, Clone, PartialEq)]", f"pub enum {name} {{"]
        lines += [f"    {api(m)}(messages::{api(m)}{kind})," for m in apis]
        lines += ["}", "", f"impl {name} {{", f"    /// Reads one {kind.lower()} of this API; bytes may be left over.", "    ///", "    /// # Errors",
                  "    /// [`WireError`] when the bytes are not such a message.",
                  "    pub fn decode(key: ApiKey, r: &mut Reader, version: i16) -> Result<Self, WireError> {", "        Ok(match key {"]
        lines += match_arms(apis, lambda m: f"ApiKey::{api(m)} => {name}::{api(m)}(messages::{api(m)}{kind}::decode(r, version)?)")
        lines += ["        })", "    }", "", "    /// Writes it; fields that the version does not have are left out.",
                  "    pub fn encode(&self, w: &mut Writer, version: i16) {", "        match self {"]
        lines += match_arms(apis, lambda m: f"{name}::{api(m)}(message) => message.encode(w, version)")
        lines += ["        }", "    }", "", "    /// Which API it is of.", "    pub fn key(&self) -> ApiKey {", "        match self {"]
        lines += match_arms(apis, lambda m: f"{name}::{api(m)}(_) => ApiKey::{api(m)}")
        lines += ["        }", "    }", "}", ""]
        for m in apis:
            lines += [f"impl From<messages::{api(m)}{kind}> for {name} {{", f"    fn from(message: messages::{api(m)}{kind}) -> Self {{",
                      f"        {name}::{api(m)}(message)", "    }", "}", ""]
    return "\n".join(lines)


def for_each_code(groups):
    """A macro over the type of every message there is, for tests that hold for all."""
    types = "".join(f"            crate::{group}::{m.name},\n" for group, messages in groups.items() for m in messages)
    return ["/// Hands the type of every message to the macro `$each`.", "#[cfg(test)]", "macro_rules! for_each_message {",
            "    ($each:ident) => {", "        $each! {", types + "        }", "    };", "}", "#[cfg(test)]",
            "pub(crate) use for_each_message;", ""]


def load_all(schema_dir):
    groups = {"messages": [], "metadata": [], "coordinator": []}
    for path in sorted(schema_dir.rglob("*.json")):
        spec = load(path)
        if spec.get("validVersions", "none") == "none" or "fields" not in spec:
            continue
        if path.parent.name == "metadata":
            group = "metadata"
        elif "coordinator" in spec["type"]:
            group = "coordinator"
        else:
            group = "messages"
        groups[group].append(Message(spec, path))
    return groups


def write_group(folder, messages):
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.rs"):
        old.unlink()
    for m in messages:
        (folder / f"{snake(m.name)}.rs").write_text(m.code())
    mods = "".join(f"pub mod {snake(m.name)};\n" for m in messages)
    uses = "".join(f"pub use {snake(m.name)}::{m.name};\n" for m in messages)
    (folder / "mod.rs").write_text(f"{HEAD}\n{mods}\n{uses}")


def main():
    schema_dir, out_dir = Path(sys.argv[1]), Path(sys.argv[2])
    groups = load_all(schema_dir)
    apis = sorted((m for m in groups["messages"] if m.kind == "request"), key=lambda m: m.api_key)
    top = ["//! Generated by protocol/generate/generate.py from the schemas in Apache Kafka's jars; do not edit.",
           "#![allow(clippy::all, clippy::unwrap_used, missing_docs, unused_mut)]", "", "pub mod any;"]
    for group, messages in groups.items():
        write_group(out_dir / group, messages)
        top.append(f"pub mod {group};")
    (out_dir / "any.rs").write_text(any_code(apis))
    lines = api_key_code(apis) + metadata_record_code(groups["metadata"]) + for_each_code(groups)
    (out_dir / "mod.rs").write_text("\n".join(top + lines))


main()
