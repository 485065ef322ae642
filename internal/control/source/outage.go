package source

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"time"

	"github.com/weftmesh/weft/internal/control/model"
)

// outage is what is known of a part of a source that cannot be read.
type outage struct {
	reason string
	since  time.Time
}

// OutageReason leaves out of an error what differs from one request to the next: its URL, and the port of ours that it was sent from.
func OutageReason(err error) string {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	if op := (*net.OpError)(nil); errors.As(err, &op) && op.Op != "dial" {
		err = op.Err
	}
	return err.Error()
}

// Lost notes that a part of the source cannot be read, and why, until Back is called. That is told like a finding about an object, for
// a change there is not in force; parts that are lost for one reason are told of together.
func (in *Intake) Lost(part, reason string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	was, lost := in.outages[part]
	if lost && was.reason == reason {
		return
	}
	if in.outages == nil {
		in.outages = map[string]outage{}
	}
	in.outages[part] = outage{reason, cmp.Or(was.since, time.Now())}
	in.publishFindings()
}

// Back notes that a part can be read.
func (in *Intake) Back(part string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if _, lost := in.outages[part]; lost {
		delete(in.outages, part)
		in.publishFindings()
	}
}

// WentBack is the topic and the code of the finding that a source was restored from a backup, or has lost its data, and remarkTime how long
// that is said.
const (
	WentBack   = "SourceWentBack"
	remarkTime = 10 * time.Minute
)

// WentBack says for a while that the source is not what it was.
func (in *Intake) WentBack(message, hint string) {
	in.mu.Lock()
	place := in.place
	if in.forgets == nil {
		in.forgets = time.AfterFunc(remarkTime, func() { in.Remark(WentBack, nil) })
	} else {
		in.forgets.Reset(remarkTime)
	}
	in.mu.Unlock()
	in.Remark(WentBack, &model.Finding{Severity: model.Warning, Code: WentBack, File: place, Message: message, Hint: hint})
}

// Remark tells something of the source as a whole, in the place of what was told so before of the same topic; nil takes that back.
func (in *Intake) Remark(topic string, f *model.Finding) {
	in.mu.Lock()
	defer in.mu.Unlock()
	was, told := in.remarks[topic]
	switch {
	case f == nil && !told, f != nil && told && was == *f:
		return
	case f == nil:
		delete(in.remarks, topic)
	default:
		if in.remarks == nil {
			in.remarks = map[string]model.Finding{}
		}
		in.remarks[topic] = *f
	}
	in.publishFindings()
}

func (in *Intake) publishFindings() {
	if in.publish != nil {
		in.publish(Change{Findings: in.findings()})
	}
}

// maxParts bounds the parts that one finding names.
const maxParts = 5

// lost gives a finding for each reason why something cannot be read, and one for a source that was never read, whatever the reason.
func (in *Intake) lost() (all []model.Finding) {
	hint := "what was read before stays in force; changes and new objects are not"
	if !in.opened {
		hint = unserved
		if len(in.outages) == 0 {
			return []model.Finding{{Severity: model.Info, Code: "SourceUnread", File: in.place, Hint: hint,
				Message: fmt.Sprintf("it has been asked since %s and has not told everything yet", in.begun.UTC().Format(time.RFC3339))}}
		}
	}
	parts, since := map[string][]string{}, map[string]time.Time{}
	for _, part := range slices.Sorted(maps.Keys(in.outages)) {
		o := in.outages[part]
		parts[o.reason] = append(parts[o.reason], part)
		if t, known := since[o.reason]; !known || o.since.Before(t) {
			since[o.reason] = o.since
		}
	}
	for reason, names := range parts {
		all = append(all, model.Finding{Severity: model.Warning, Code: "SourceUnreadable", File: in.place,
			Message: fmt.Sprintf("%s cannot be read since %s: %s", enumerate(names), since[reason].UTC().Format(time.RFC3339), reason),
			Hint:    hint})
	}
	return all
}

// enumerate names some and counts the others.
func enumerate(names []string) string {
	text, rest := "", len(names)-maxParts
	for i, n := range names[:min(len(names), maxParts)] {
		switch {
		case i == 0:
			text = n
		case i == len(names)-1:
			text += " and " + n
		default:
			text += ", " + n
		}
	}
	if rest > 0 {
		text += fmt.Sprintf(" and %d more", rest)
	}
	return text
}
