// The hash of a call's input that strict mode compares: of one JSON text (RFC 8785) that all languages make of it.

package stepwell

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
)

// inputHash is 16 bytes of what a call was given, in its order. Its error is an ErrSerialization that names what.
func inputHash(inputs []any, what string) ([]byte, error) {
	data, err := encode(inputs, what)
	if err != nil {
		return nil, err
	}
	// Numbers as text: a float64 would refuse those that are beyond its range.
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		return nil, &Error{reasonSerialization, fmt.Sprintf("%s is nothing that strict mode can compare: %v", what, err), err}
	}
	digest := sha256.Sum256(appendCanonical(nil, value))
	return digest[:16], nil
}

func appendCanonical(text []byte, value any) []byte {
	switch value := value.(type) {
	case nil:
		return append(text, "null"...)
	case bool:
		return strconv.AppendBool(text, value)
	case string:
		return appendCanonicalString(text, value)
	case json.Number:
		return appendCanonicalNumber(text, value)
	case []any:
		return appendMembers(text, "[]", value, appendCanonical)
	case map[string]any:
		names := slices.SortedFunc(maps.Keys(value), func(a, b string) int {
			return slices.CompareFunc(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)), cmp.Compare)
		})
		return appendMembers(text, "{}", names, func(text []byte, name string) []byte {
			return appendCanonical(append(appendCanonicalString(text, name), ':'), value[name])
		})
	}
	panic(fmt.Sprintf("JSON has no %T", value))
}

func appendMembers[T any](text []byte, brackets string, members []T, member func([]byte, T) []byte) []byte {
	text = append(text, brackets[0])
	for i, one := range members {
		if i > 0 {
			text = append(text, ',')
		}
		text = member(text, one)
	}
	return append(text, brackets[1])
}

// appendCanonicalNumber writes a number as ECMAScript does; one beyond the range of a float64 counts as null.
func appendCanonicalNumber(text []byte, number json.Number) []byte {
	value, _ := strconv.ParseFloat(string(number), 64) // its only error here is the infinity that it answers
	switch {
	case math.IsInf(value, 0):
		return append(text, "null"...)
	case value == 0:
		return append(text, '0') // zero has no sign here
	}
	written, err := json.Marshal(value)
	if err != nil {
		panic(err) // a finite number always has a JSON form
	}
	return append(text, written...)
}

// appendCanonicalString escapes what JSON must have escaped, and nothing else.
func appendCanonicalString(text []byte, value string) []byte {
	text = append(text, '"')
	for _, char := range value {
		if short, ok := escapes[char]; ok {
			text = append(text, '\\', short)
		} else if char < ' ' {
			text = fmt.Appendf(text, `\u%04x`, char)
		} else {
			text = append(text, string(char)...)
		}
	}
	return append(text, '"')
}

var escapes = map[rune]byte{'"': '"', '\\': '\\', '\b': 'b', '\f': 'f', '\n': 'n', '\r': 'r', '\t': 't'}
