// Events: the one that started a run, the ones it waits for, the ones it sends.

package stepwell

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	stepwellv1 "stepwell.example/stepwell/v1"
)

const (
	reserved          = "stepwell/"
	invoked           = reserved + "function.invoked"
	eventNameBytesMax = 256
)

// Event is an accepted event. An invoked function sees one named "stepwell/function.invoked" whose data is its input.
type Event[T any] struct {
	ID       string
	Name     string
	Data     T
	Time     time.Time
	Metadata map[string]string
	// SenderID is the sender's own id, if it gave one.
	SenderID string
}

// NewEvent is an event to send.
type NewEvent struct {
	Name string
	// Data is anything whose JSON is an object; nil is an empty one.
	Data any
	// ID is the sender's own: the same id within 24 hours is the same event.
	ID string
	// Time is when it happened; the zero time means now.
	Time     time.Time
	Metadata map[string]string
}

// message checks the event. maxBytes bounds its data; 0 is no bound.
func (e NewEvent) message(maxBytes uint32) (*stepwellv1.NewEvent, error) {
	if err := checkEventName(e.Name, false); err != nil {
		return nil, err
	}
	message := &stepwellv1.NewEvent{Name: e.Name, Id: clean(e.ID)}
	for name, value := range e.Metadata {
		if message.Metadata == nil {
			message.Metadata = make(map[string]string, len(e.Metadata))
		}
		message.Metadata[clean(name)] = clean(value)
	}
	if e.Data != nil {
		data, err := encode(e.Data, "the data of event "+e.Name)
		if err != nil {
			return nil, err
		}
		if data[0] != '{' {
			return nil, usageError("the data of event %q must be a JSON object, not %.40s", e.Name, data)
		}
		if maxBytes > 0 && len(data) > int(maxBytes) {
			return nil, limitError("the data of event %q has %d bytes; event_bytes is %d", e.Name, len(data), maxBytes)
		}
		message.Data = &stepwellv1.Payload{Data: data}
	}
	if !e.Time.IsZero() {
		message.TimeMs = e.Time.UnixMilli()
	}
	return message, nil
}

// checkEventName answers a usage error for what cannot name an event or, in a trigger, a prefix that ends in "*".
func checkEventName(name string, wildcard bool) error {
	stem := name
	if wildcard {
		stem = strings.TrimSuffix(name, "*")
	}
	switch {
	case name == "":
		return usageError("an event needs a name")
	case len(name) > eventNameBytesMax:
		return usageError("event name %.40q… is longer than %d bytes", name, eventNameBytesMax)
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl):
		return usageError("event name %q holds a control character or is not UTF-8", name)
	case strings.Contains(stem, "*") && wildcard:
		return usageError("event name %q: a wildcard is allowed only at its end", name)
	case strings.Contains(stem, "*"):
		return usageError("event name %q: a wildcard is allowed only in triggers", name)
	}
	return nil
}

// eventFrom is the event that started a run. An empty payload is an empty object, or null for an invoked function.
func eventFrom[T any](message *stepwellv1.Event) (Event[T], error) {
	event := Event[T]{
		ID: message.GetId(), Name: message.GetName(), Time: fromMs(message.GetTimeMs()),
		Metadata: message.GetMetadata(), SenderID: message.GetSenderId(),
	}
	what := "the data of event " + event.Name
	data, err := payloadData(message.GetData(), what)
	if err != nil {
		return event, err
	}
	if len(data) == 0 && event.Name != invoked {
		data = []byte("{}")
	}
	return event, decode(data, &event.Data, what)
}

// wholeEvent is implemented by *Event: WaitForEvent then answers the event itself, not its data alone.
type wholeEvent interface {
	readWait(data []byte, what string) error
}

func (e *Event[T]) readWait(data []byte, what string) error {
	var fields struct {
		ID       string            `json:"id"`
		Name     string            `json:"name"`
		Data     T                 `json:"data"`
		TimeMs   int64             `json:"time_ms"`
		Metadata map[string]string `json:"metadata"`
		SenderID string            `json:"sender_id"`
	}
	if err := decode(data, &fields, what); err != nil {
		return err
	}
	*e = Event[T]{fields.ID, fields.Name, fields.Data, fromMs(fields.TimeMs), fields.Metadata, fields.SenderID}
	return nil
}

// readWait reads what a wait was resolved with: into an Event, or the event's data into any other type.
func readWait(data []byte, into any, what string) error {
	if whole, ok := into.(wholeEvent); ok {
		return whole.readWait(data, what)
	}
	var event Event[json.RawMessage]
	if err := event.readWait(data, what); err != nil {
		return err
	}
	return decode(event.Data, into, what)
}

// checkAwaited answers a usage error for what no wait can be for: the server's own events reach none.
func checkAwaited(name string) error {
	if err := checkEventName(name, false); err != nil {
		return err
	}
	if strings.HasPrefix(name, reserved) {
		return usageError("event name %q: events that begin with %s reach no wait", name, reserved)
	}
	return nil
}

// matchValue is what stands at a path of the event that started the run, as JSON.
func matchValue(event *stepwellv1.Event, path string) ([]byte, error) {
	missing := usageError("match %q: the event that started this run holds nothing there", path)
	head, rest, nested := strings.Cut(path, ".")
	var value any
	switch head {
	case "id":
		value = event.GetId()
	case "name":
		value = event.GetName()
	case "time_ms":
		value = event.GetTimeMs()
	case "metadata":
		fields := map[string]any{}
		for name, text := range event.GetMetadata() {
			fields[name] = text
		}
		value = fields
	case "data":
		data, err := payloadData(event.GetData(), "the event's data")
		if err != nil {
			return nil, err
		}
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.UseNumber() // a large whole number must stay itself
		if err := decoder.Decode(&value); err != nil {
			return nil, missing
		}
	default:
		return nil, missing
	}
	for nested {
		var part string
		part, rest, nested = strings.Cut(rest, ".")
		fields, ok := value.(map[string]any)
		if !ok {
			return nil, missing
		}
		if value, ok = fields[part]; !ok {
			return nil, missing
		}
	}
	return encode(value, "match "+path)
}

func fromMs(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
