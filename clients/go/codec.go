// The JSON codec: any value out, and back in as the type that was asked for.

package stepwell

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// encoder is one with what it has written. Those that held little are used again.
type encoder struct {
	json *json.Encoder
	out  bytes.Buffer
}

const encoderBytesMax = 64 * 1024

var encoders = sync.Pool{New: func() any {
	e := &encoder{}
	e.json = json.NewEncoder(&e.out)
	e.json.SetEscapeHTML(false)
	return e
}}

// encode makes JSON text. Its error is an ErrSerialization that names what.
func encode(value any, what string) (data []byte, err error) {
	defer refusePanic(&err, what)
	e := encoders.Get().(*encoder)
	if err := e.json.Encode(value); err != nil {
		return nil, &Error{reasonSerialization, fmt.Sprintf("%s (%T) has no JSON form: %v", what, value, err), err}
	}
	data = bytes.TrimSuffix(e.out.Bytes(), []byte("\n"))
	if e.out.Len() > encoderBytesMax {
		return data, nil
	}
	data = bytes.Clone(data)
	e.out.Reset()
	encoders.Put(e)
	return data, nil
}

// decode reads JSON text; none at all is null. Its error is an ErrSerialization that names what.
func decode(data []byte, into any, what string) (err error) {
	defer refusePanic(&err, what)
	if len(data) == 0 {
		data = []byte("null")
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &Error{reasonSerialization, fmt.Sprintf("%s does not fit its type: %v", what, err), err}
	}
	return nil
}

// refusePanic makes an error of a panic in a type's own MarshalJSON or UnmarshalJSON.
func refusePanic(err *error, what string) {
	if value := recover(); value != nil {
		*err = &Error{Reason: reasonSerialization, Message: fmt.Sprintf("%s: its JSON methods panicked: %v", what, value)}
	}
}

// payloadData is the JSON text of a payload; another encoding is an ErrSerialization.
func payloadData(payload *stepwellv1.Payload, what string) ([]byte, error) {
	if encoding := payload.GetEncoding(); encoding != "" && encoding != "json" {
		message := fmt.Sprintf("%s is encoded as %q; only json is understood", what, encoding)
		return nil, &Error{Reason: reasonSerialization, Message: message}
	}
	return payload.GetData(), nil
}
