package consul

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// ownService is how Consul registers itself.
const ownService = "consul"

// labels are the meta, and the tags: "key=value" as it says, others with the value "true". What can be no label is left out; of two values for
// one key the later tag counts, and the meta before tags. What does not count is noted.
func (i *instance) labels(odd *oddities) map[string]string {
	l, from := map[string]string{}, map[string]string{}
	add := func(k, v, text string) {
		if len(validation.IsQualifiedName(k)) > 0 || len(validation.IsValidLabelValue(v)) > 0 {
			odd.unfit[text] = append(odd.unfit[text], i.where())
			return
		}
		if before, twice := l[k]; twice && before != v {
			both := text + " counts, not " + from[k]
			odd.against[both] = append(odd.against[both], i.where())
		}
		l[k], from[k] = v, text
	}
	for _, tag := range i.Service.Tags {
		k, v, ok := strings.Cut(tag, "=")
		if !ok {
			v = "true"
		}
		add(k, v, fmt.Sprintf("tag %.100q", tag))
	}
	for k, v := range i.Service.Meta {
		add(k, v, fmt.Sprintf("meta %.100q", k+"="+v))
	}
	return l
}

// oddities are the tags and meta of a service's instances that do not count as labels, each with the instances that have it.
type oddities struct {
	unfit   map[string][]string
	against map[string][]string // contradictions
}

// The codes of what is said of them.
const (
	noLabel        = "NoLabel"
	tagsContradict = "TagsContradict"
)

func newOddities() *oddities { return &oddities{map[string][]string{}, map[string][]string{}} }

// of names them, with one instance each.
func of(which map[string][]string) string {
	texts := make([]string, 0, len(which))
	for text, instances := range which {
		if text += " of " + slices.Min(instances); len(instances) > 1 {
			text += fmt.Sprintf(" and %d more", len(instances)-1)
		}
		texts = append(texts, text)
	}
	return enumerate(texts)
}

// tellOddities says what of a service's tags and meta does not count, in the place of what was said before; nil is nothing.
func (s *Source) tellOddities(name string, odd *oddities) {
	var unfit, against *model.Finding
	if odd != nil && name != ownService {
		if len(odd.unfit) > 0 {
			f := s.finding(name, s.key(name), model.Info, noLabel, "tags and meta that can be no labels are left out: "+of(odd.unfit),
				"nothing, unless a subset is to select by them: then register it with a key and a value of up to 63 letters, digits, \"-\", \"_\" and \".\", such as \"version=v2\"")
			unfit = &f
		}
		if len(odd.against) > 0 {
			f := s.finding(name, s.key(name), model.Warning, tagsContradict, "tags and meta of an instance contradict each other: "+of(odd.against),
				"register each instance with one value for a key")
			against = &f
		}
	}
	s.unfit.note(&s.intake, name, unfit)
	s.against.note(&s.intake, name, against)
}

// maxTold bounds the services of which a roll tells by name.
const maxTold = 20

// roll is what there is to say of services under one code, of which there may be thousands: it tells of the first ones by name, and how
// many more there are. Its methods may be called from any goroutine.
type roll struct {
	code, rest string // what is said of the others after their number
	severity   model.Severity

	mu   sync.Mutex
	all  map[string]model.Finding // by service
	told []string                 // the first of all, in order
}

// note takes what there is to say of a service now, nil for nothing.
func (r *roll) note(in *source.Intake, name string, f *model.Finding) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before, was := r.all[name]
	if f == nil && !was || f != nil && was && before == *f {
		return
	}
	old := r.told
	switch {
	case f == nil:
		delete(r.all, name)
		if slices.Contains(old, name) {
			r.told = slices.Sorted(maps.Keys(r.all))
			r.told = slices.Clone(r.told[:min(len(r.told), maxTold)])
		}
	default:
		if r.all == nil {
			r.all = map[string]model.Finding{}
		}
		r.all[name] = *f
		if at, there := slices.BinarySearch(old, name); !there && at < maxTold {
			r.told = slices.Insert(slices.Clone(old), at, name)
			r.told = r.told[:min(len(r.told), maxTold)]
		}
	}
	r.tell(in, old)
}

// tell tells of the first ones, and no more of those that were.
func (r *roll) tell(in *source.Intake, old []string) {
	key := func(name string) source.Key { return source.Key{Group: Layer, Kind: r.code, Name: name} }
	var came []source.Arrival
	var gone []source.Key
	for _, name := range r.told {
		came = append(came, source.Arrival{Key: key(name), Findings: []model.Finding{r.all[name]}})
	}
	for _, name := range old {
		if !slices.Contains(r.told, name) {
			gone = append(gone, key(name))
		}
	}
	if n := len(r.all) - len(r.told); n > 0 {
		came = append(came, source.Arrival{Key: key(""), Findings: []model.Finding{{Severity: r.severity, Code: r.code, File: Layer,
			Message: fmt.Sprintf("%d more services %s", n, r.rest)}}})
	} else {
		gone = append(gone, key(""))
	}
	in.Update(came, gone)
}
