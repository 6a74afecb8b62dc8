// Failures of runs, gathered by function and error.

package stepwell

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	stepwellv1 "stepwell.example/stepwell/v1"
)

// FailureFilter chooses failures; all that is set must fit. Without Statuses: FAILED and TIMED_OUT.
type FailureFilter struct {
	FunctionIDs []string
	App         string
	Statuses    []RunStatus
	Since       time.Time
	Until       time.Time
	// PageSize is the number of groups at most; 0: 200.
	PageSize  int
	PageToken string
}

// FailureGroup are runs of one function that failed in the same way; RunID is the last one. In Message stands a placeholder for
// what differs from run to run; Frame is the place in the user's code as "function (file)", and Key the step that it came from.
type FailureGroup struct {
	Fingerprint string
	FunctionID  string
	Statuses    []RunStatus
	Count       int
	FirstSeen   time.Time
	LastSeen    time.Time
	RunID       string
	Type        string
	Reason      string
	Message     string
	Frame       string
	Key         string
}

// FailurePage are failures among the runs looked at, those seen last first. No run with an id older than ScannedTo was looked at;
// it is zero, and NextPageToken empty, where all were.
type FailurePage struct {
	Groups        []FailureGroup
	NextPageToken string
	Scanned       int
	ScannedTo     time.Time
}

// ListFailures are runs that came to grief, gathered by function and error. A page looks at a bounded number of runs; where it has
// a NextPageToken, the next one looks at older runs.
func (c *Client) ListFailures(ctx context.Context, filter FailureFilter) (FailurePage, error) {
	statuses, err := statusesOf(filter.Statuses)
	if err != nil {
		return FailurePage{}, err
	}
	request := &stepwellv1.ListFailuresRequest{
		Environment: c.settings.environment, App: clean(filter.App), Statuses: statuses, FromMs: msOf(filter.Since),
		UntilMs: msOf(filter.Until), PageSize: uint32(max(filter.PageSize, 0)), PageToken: clean(filter.PageToken),
	}
	for _, one := range filter.FunctionIDs {
		request.FunctionIds = append(request.FunctionIds, clean(one))
	}
	response, err := ask(ctx, c.settings.timeout, c.runs.ListFailures, request)
	page := FailurePage{
		NextPageToken: response.GetNextPageToken(), Scanned: int(response.GetScanned()), ScannedTo: timeFrom(response.GetScannedToMs()),
	}
	for _, m := range response.GetGroups() {
		group := FailureGroup{
			Fingerprint: m.GetFingerprint(), FunctionID: m.GetFunctionId(), Count: int(m.GetCount()), FirstSeen: timeFrom(m.GetFirstSeenMs()),
			LastSeen: timeFrom(m.GetLastSeenMs()), RunID: m.GetRunId(), Type: m.GetType(), Reason: m.GetReason(), Message: m.GetMessage(),
			Frame: m.GetFrame(), Key: m.GetKey(),
		}
		for _, status := range m.GetStatuses() {
			group.Statuses = append(group.Statuses, statusFrom(status))
		}
		page.Groups = append(page.Groups, group)
	}
	return page, err
}

func statusesOf(statuses []RunStatus) (known []stepwellv1.RunStatus, err error) {
	for _, status := range statuses {
		number, ok := stepwellv1.RunStatus_value[statusPrefix+string(status)]
		if !ok {
			return nil, &APIError{Code: codes.InvalidArgument, Reason: "BAD_STATUS", Message: fmt.Sprintf("there is no status %q", status)}
		}
		known = append(known, stepwellv1.RunStatus(number))
	}
	return known, nil
}
