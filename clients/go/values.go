package stepwell

import stepwellv1 "stepwell.example/stepwell/v1"
import "encoding/json"

type Failure struct {
	Type         string
	Message      string
	Reason       string
	Stack        string
	NonRetriable bool
	Details      json.RawMessage
	Cause        *Failure
}

func failureFrom(message *stepwellv1.Failure) *Failure {
	if message == nil {
		return nil
	}
	return &Failure{
		Type: message.GetType(), Message: message.GetMessage(), Reason: message.GetReason(), Stack: message.GetStack(),
		NonRetriable: message.GetNonRetriable(), Details: message.GetDetails().GetData(), Cause: failureFrom(message.GetCause()),
	}
}
