package logs

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func all(Line) bool { return true }

func texts(s *Store, opt Options) (out []string) {
	for l := range s.Read(context.Background(), all, opt) {
		out = append(out, l.Pod+"/"+l.Process+" "+l.Text)
	}
	return out
}

func writer(t *testing.T, s *Store, pod string, slot int) *Writer {
	t.Helper()
	w, err := s.Writer(Source{Namespace: "default", Workload: "reviews", Pod: pod, Process: "app", Slot: slot})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

func TestReadMergesByTime(t *testing.T) {
	s, err := Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	a, b := writer(t, s, "reviews-a", 0), writer(t, s, "reviews-b", 1)
	a.Copy(strings.NewReader("one\r\ntwo\n"), false)
	b.Copy(strings.NewReader("three, no end of line"), true)
	middle := time.Now()
	a.Write("four", false)
	if got := fmt.Sprint(texts(s, Options{})); got != "[reviews-a/app one reviews-a/app two reviews-b/app three, no end of line reviews-a/app four]" {
		t.Error(got)
	}
	if got := fmt.Sprint(texts(s, Options{Tail: 1})); got != "[reviews-b/app three, no end of line reviews-a/app four]" {
		t.Error(got)
	}
	if got := fmt.Sprint(texts(s, Options{Since: middle})); got != "[reviews-a/app four]" {
		t.Error(got)
	}
}

func TestRotation(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, 1000)
	if err != nil {
		t.Fatal(err)
	}
	w := writer(t, s, "p", 0)
	for i := range 200 {
		w.Write(fmt.Sprint("line ", i), false)
	}
	w.Write(strings.Repeat("x", 500), true)
	var size int64
	filepath.Walk(dir, func(_ string, fi os.FileInfo, _ error) error {
		if !fi.IsDir() {
			size += fi.Size()
		}
		return nil
	})
	if size > 2*1600 {
		t.Errorf("ring takes %d bytes", size)
	}
	got := texts(s, Options{})
	if !strings.HasPrefix(got[0], "p/app [earlier lines of this process are gone") {
		t.Errorf("nobody says that lines are gone: %q", got[0])
	}
	if last := texts(s, Options{Tail: 1}); len(last) != 1 {
		t.Errorf("the last line: %q", last)
	}
	if len(got) < 5 || !strings.HasSuffix(got[len(got)-1], "xxx") || got[len(got)-2] != "p/app line 199" {
		t.Errorf("kept %q", got)
	}
}

func TestLongLineIsCut(t *testing.T) {
	s, err := Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	writer(t, s, "p", 0).Copy(strings.NewReader(strings.Repeat("y", maxLine+10)+"\nend\n"), false)
	if got := texts(s, Options{}); len(got) != 3 || len(got[1]) != len("p/app ")+10 || got[2] != "p/app end" {
		t.Errorf("%d lines", len(got))
	}
}

func TestFollow(t *testing.T) {
	s, err := Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	w := writer(t, s, "p", 0)
	w.Write("before", false)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for l := range s.Read(ctx, all, Options{Follow: true}) {
		if want := []string{"before", "0", "1", "2"}[n]; l.Text != want {
			t.Fatalf("line %d is %q", n, l.Text)
		}
		if n == 3 {
			cancel()
			continue
		}
		w.Write(fmt.Sprint(n), false)
		n++
	}
	if n != 3 {
		t.Errorf("ended after %d lines", n)
	}
	if len(s.followers) != 0 {
		t.Error("the follower stays")
	}
}

func TestSlowFollowerIsTold(t *testing.T) {
	f := &follower{lines: make(chan Line, 1)}
	for i := range 3 {
		f.offer(Line{Text: fmt.Sprint(i)})
	}
	if l := <-f.lines; l.Text != "0" {
		t.Fatal(l.Text)
	}
	f.offer(Line{Text: "3"})
	if l := <-f.lines; !strings.Contains(l.Text, "2 lines lost") {
		t.Fatal(l.Text)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("2026-01-02T03:04:05.6Z pod O some text\n")
	f.Fuzz(func(t *testing.T, row string) {
		l, ok := parse(row, Line{})
		if !ok {
			return
		}
		if again, ok := parse(format(l), Line{}); !ok || again.Text != l.Text || again.Pod != l.Pod || !again.Time.Equal(l.Time) {
			t.Errorf("%q: %+v, then %+v", row, l, again)
		}
	})
}
