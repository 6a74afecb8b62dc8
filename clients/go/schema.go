// JSON Schemas (2020-12) of Go types: what encoding/json writes, and reads.

package stepwell

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"
)

type schema = map[string]any

// schemaOf is the schema of a type as JSON text; none for a type that says nothing, such as any. output tells that values
// are written, not read: then every field is there that encoding/json does not leave out.
func schemaOf(t reflect.Type, output bool) []byte {
	if t.Kind() == reflect.Struct && t.NumField() == 0 {
		return nil
	}
	derivation := schemas{output: output, definitions: schema{}, names: map[reflect.Type]string{}}
	root := derivation.of(t)
	// A definition that only the root names stands at the root.
	if ref, ok := root["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, definitionsAt)
		if others := mustJSON(derivation.definitions); !bytes.Contains(others, mustJSON(ref)) {
			root = derivation.definitions[name].(schema)
			delete(derivation.definitions, name)
		}
	}
	if len(root) == 0 {
		return nil
	}
	if len(derivation.definitions) > 0 {
		root["$defs"] = derivation.definitions
	}
	return mustJSON(root)
}

// givenSchema is a schema that the user wrote; none where it is {}.
func givenSchema(text string) ([]byte, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &object); err != nil || object == nil {
		return nil, fmt.Errorf("InputSchema: %.100q is no JSON object: give a JSON Schema, or {} for a function that takes anything", text)
	}
	if len(object) == 0 {
		return nil, nil
	}
	return []byte(text), nil
}

// schemas derives. Named structs get a definition each, so that one may hold itself. What is not known may be anything: {}.
type schemas struct {
	output      bool
	definitions schema
	names       map[reflect.Type]string
}

const definitionsAt = "#/$defs/"

var (
	notInNames  = regexp.MustCompile(`[^A-Za-z0-9_.-]`)
	ownJSON     = []reflect.Type{reflect.TypeFor[json.Marshaler](), reflect.TypeFor[json.Unmarshaler]()}
	ownText     = []reflect.Type{reflect.TypeFor[encoding.TextMarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()}
	knownSchema = map[reflect.Type]schema{
		reflect.TypeFor[time.Time]():   {"type": "string", "format": "date-time"},
		reflect.TypeFor[json.Number](): {"type": []string{"number", "string"}},
	}
)

func (s *schemas) of(t reflect.Type) schema {
	if known, ok := knownSchema[t]; ok {
		return known
	}
	if t.Kind() == reflect.Pointer {
		return nullable(s.of(t.Elem()))
	}
	if implementsAny(t, ownJSON) {
		return schema{}
	}
	if implementsAny(t, ownText) {
		return schema{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Float32, reflect.Float64:
		return schema{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return schema{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		return schema{"type": "integer", "minimum": 0}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 && !implementsAny(t.Elem(), append(ownJSON, ownText...)) {
			return nullable(schema{"type": "string", "contentEncoding": "base64"})
		}
		return nullable(with(schema{"type": "array"}, "items", s.of(t.Elem())))
	case reflect.Array:
		return with(schema{"type": "array"}, "items", s.of(t.Elem()))
	case reflect.Map:
		return nullable(with(schema{"type": "object"}, "additionalProperties", s.of(t.Elem())))
	case reflect.Struct:
		return s.structure(t)
	}
	return schema{}
}

func (s *schemas) structure(t reflect.Type) schema {
	if t.Name() == "" {
		return s.object(t)
	}
	name, known := s.names[t]
	if !known {
		plain := notInNames.ReplaceAllString(t.Name(), "_")
		name = plain
		for number := 2; s.definitions[name] != nil; number++ {
			name = fmt.Sprintf("%s%d", plain, number)
		}
		s.names[t] = name
		s.definitions[name] = schema{}
		s.definitions[name] = s.object(t)
	}
	return schema{"$ref": definitionsAt + name}
}

func (s *schemas) object(t reflect.Type) schema {
	properties := schema{}
	required := []string{}
	for name, field := range jsonFields(t) {
		properties[name] = s.property(field)
		if (s.output && !field.omits) || (!s.output && field.required) {
			required = append(required, name)
		}
	}
	object := schema{"type": "object", "properties": properties}
	if len(required) > 0 {
		slices.Sort(required)
		object["required"] = required
	}
	return object
}

func (s *schemas) property(field jsonField) schema {
	if !field.quoted {
		return s.of(field.Type)
	}
	if field.Type.Kind() == reflect.Pointer {
		return nullable(schema{"type": "string"})
	}
	return schema{"type": "string"}
}

// jsonField is a field as encoding/json sees it.
type jsonField struct {
	reflect.StructField
	tagged, quoted bool
	depth          int
	required       bool // it has a name of its own, and nothing says that it may be missing
	omits          bool // it may be left out
}

// jsonFields are the fields of a struct by name, those of embedded structs included: the shallowest one of a name, and of
// several the tagged one.
func jsonFields(t reflect.Type) map[string]jsonField {
	found := map[string][]jsonField{}
	collectFields(t, 0, false, map[reflect.Type]bool{}, found)
	fields := map[string]jsonField{}
	for name, all := range found {
		slices.SortStableFunc(all, func(a, b jsonField) int {
			if a.depth != b.depth {
				return a.depth - b.depth
			}
			return boolToInt(b.tagged) - boolToInt(a.tagged)
		})
		if len(all) > 1 && all[0].depth == all[1].depth && all[0].tagged == all[1].tagged {
			continue // encoding/json takes none of them
		}
		fields[name] = all[0]
	}
	return fields
}

func collectFields(t reflect.Type, depth int, optional bool, within map[reflect.Type]bool, found map[string][]jsonField) {
	if within[t] {
		return
	}
	within[t] = true
	defer delete(within, t)
	for i := range t.NumField() {
		field := t.Field(i)
		tag := field.Tag.Get("json")
		name, options, _ := strings.Cut(tag, ",")
		inner, pointer := field.Type, field.Type.Kind() == reflect.Pointer
		if pointer {
			inner = inner.Elem()
		}
		if tag == "-" || (!field.IsExported() && !(field.Anonymous && inner.Kind() == reflect.Struct)) {
			continue
		}
		if field.Anonymous && name == "" && inner.Kind() == reflect.Struct {
			collectFields(inner, depth+1, optional || pointer, within, found)
			continue
		}
		if !field.IsExported() {
			continue
		}
		has := func(option string) bool { return slices.Contains(strings.Split(options, ","), option) }
		one := jsonField{StructField: field, depth: depth, tagged: name != "", omits: optional || has("omitempty") || has("omitzero")}
		one.quoted = has("string") && isScalar(inner)
		one.required = one.tagged && !one.omits && !pointer
		if name == "" {
			name = field.Name
		}
		found[name] = append(found[name], one)
	}
}

func isScalar(t reflect.Type) bool {
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Float64 || t.Kind() == reflect.String
}

func implementsAny(t reflect.Type, all []reflect.Type) bool {
	return slices.ContainsFunc(all, func(one reflect.Type) bool {
		return t.Implements(one) || reflect.PointerTo(t).Implements(one)
	})
}

// nullable lets null fit too: what nil becomes, and what encoding/json reads as nil.
func nullable(of schema) schema {
	switch kind := of["type"].(type) {
	case string:
		return with(of, "type", []string{kind, "null"})
	case []string:
		if slices.Contains(kind, "null") {
			return of
		}
		return with(of, "type", append(slices.Clone(kind), "null"))
	}
	if len(of) == 0 || of["anyOf"] != nil {
		return of // anything, or null already
	}
	return schema{"anyOf": []schema{of, {"type": "null"}}}
}

// with is a copy with one more keyword, unless it would say nothing.
func with(of schema, keyword string, value any) schema {
	if inner, ok := value.(schema); ok && len(inner) == 0 {
		return of
	}
	more := schema{keyword: value}
	for name, value := range of {
		if name != keyword {
			more[name] = value
		}
	}
	return more
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// mustJSON is for what this file makes: maps, lists and texts.
func mustJSON(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return data
}
