package hpack

import (
	"encoding/hex"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	xhpack "golang.org/x/net/http2/hpack"
)

var noTags = NewTags(func(string, string) uint8 { return 0 })

func decodeAll(d *Decoder, block []byte) (fs []Field, err error) {
	d.Begin(block, make([]byte, 0, StoreSize(len(block))))
	for {
		var f Field
		ok, err := d.Next(&f)
		if !ok {
			return fs, err
		}
		fs = append(fs, f)
	}
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func lines(fs []Field) string {
	var b strings.Builder
	for _, f := range fs {
		b.WriteString(f.Name + ": " + f.Value + "\n")
	}
	return b.String()
}

// TestAppendixC decodes the sequences of RFC 7541 appendix C.3 to C.6 and compares fields and the table's size after each.
func TestAppendixC(t *testing.T) {
	requests := []string{
		":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\n",
		":method: GET\n:scheme: http\n:path: /\n:authority: www.example.com\ncache-control: no-cache\n",
		":method: GET\n:scheme: https\n:path: /index.html\n:authority: www.example.com\ncustom-key: custom-value\n",
	}
	responses := []string{
		":status: 302\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
		":status: 307\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:21 GMT\nlocation: https://www.example.com\n",
		":status: 200\ncache-control: private\ndate: Mon, 21 Oct 2013 20:13:22 GMT\nlocation: https://www.example.com\n" +
			"content-encoding: gzip\nset-cookie: foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1\n",
	}
	for _, c := range []struct {
		name   string
		max    int
		blocks []string
		want   []string
		sizes  []int
	}{
		{"C.3", 4096, []string{
			"8286 8441 0f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
			"8286 84be 5808 6e6f 2d63 6163 6865",
			"8287 85bf 400a 6375 7374 6f6d 2d6b 6579 0c63 7573 746f 6d2d 7661 6c75 65",
		}, requests, []int{57, 110, 164}},
		{"C.4", 4096, []string{
			"8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
			"8286 84be 5886 a8eb 1064 9cbf",
			"8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
		}, requests, []int{57, 110, 164}},
		{"C.5", 256, []string{
			"4803 3330 3258 0770 7269 7661 7465 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3120 474d 546e" +
				"1768 7474 7073 3a2f 2f77 7777 2e65 7861 6d70 6c65 2e63 6f6d",
			"4803 3330 37c1 c0bf",
			"88c1 611d 4d6f 6e2c 2032 3120 4f63 7420 3230 3133 2032 303a 3133 3a32 3220 474d 54c0 5a04 677a 6970 7738 666f 6f3d" +
				"4153 444a 4b48 514b 425a 584f 5157 454f 5049 5541 5851 5745 4f49 553b 206d 6178 2d61 6765 3d33 3630 303b 2076 6572 7369 6f6e 3d31",
		}, responses, []int{222, 222, 215}},
		{"C.6", 256, []string{
			"4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
			"4883 640e ffc1 c0bf",
			"88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
		}, responses, []int{222, 222, 215}},
	} {
		d := NewDecoder(c.max, noTags)
		for i, block := range c.blocks {
			fs, err := decodeAll(d, unhex(t, block))
			if err != nil || lines(fs) != c.want[i] || d.table.size != c.sizes[i] {
				t.Errorf("%s block %d: %v, table of %d bytes\n%s", c.name, i+1, err, d.table.size, lines(fs))
			}
		}
	}
}

func TestHuffmanRoundTrip(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, s := range []string{"", "a", "www.example.com", "custom-value", string(all)} {
		coded := appendHuffman(nil, s)
		if want := xhpack.AppendHuffmanString(nil, s); string(coded) != string(want) || len(coded) != huffmanLength(s) {
			t.Errorf("%q is coded as %x, want %x", s, coded, want)
		}
		if got, ok := appendDecoded(nil, coded); !ok || string(got) != s {
			t.Errorf("%x is decoded as %q, %v, want %q", coded, got, ok, s)
		}
		if len(s) > maxDecoded(len(coded)) {
			t.Errorf("%d bytes decode to %d", len(coded), len(s))
		}
	}
}

func TestRefusedBlocks(t *testing.T) {
	for _, c := range []struct {
		name, block string
		err         error
	}{
		{"index 0", "80", ErrIndex},
		{"index beyond the tables", "be", ErrIndex},
		{"name beyond the tables", "7e 01 61", ErrIndex},
		{"no value", "41", ErrTruncated},
		{"value cut off", "41 05 61", ErrTruncated},
		{"integer cut off", "ff 80", ErrTruncated},
		{"integer too long", "ff ff ff ff ff ff ff 01", ErrInteger},
		{"integer with endless zeros", "ff 80 80 80 80 80 80 80 00", ErrInteger},
		{"table larger than allowed", "3f e2 1f", ErrTableSize},
		{"table size after a field", "82 20", ErrTableSize},
		{"three table sizes", "20 20 20", ErrTableSize},
		{"EOS in a string", "40 84 ff ff ff ff 00", ErrHuffman},
		{"padding of a byte", "40 82 1f ff 00", ErrHuffman},
		{"padding with a zero", "40 81 18 00", ErrHuffman},
	} {
		_, err := decodeAll(NewDecoder(4096, noTags), unhex(t, c.block))
		if err != c.err {
			t.Errorf("%s: %v, want %v", c.name, err, c.err)
		}
	}
}

func TestTableSizes(t *testing.T) {
	e, d := NewEncoder(), NewDecoder(4096, noTags)
	send := func(want string) {
		t.Helper()
		b := e.Begin(nil)
		b = e.Field(b, "a", "b")
		fs, err := decodeAll(d, b)
		if err != nil || lines(fs) != "a: b\n" || hex.EncodeToString(b) != want {
			t.Fatalf("%x, %v, want %s", b, err, want)
		}
	}
	send("0001610162")
	send("4001610162") // met again: into the table
	send("be")
	e.SetMax(0)
	e.SetMax(100)
	send("203f45" + "4001610162") // the table was emptied on the way
	e.SetMax(1 << 20)
	send("3fe11f" + "be")
	e.SetMax(10)
	send("2a" + "0001610162")
	if d.table.max != 10 || d.table.n != 0 {
		t.Fatalf("the decoder's table has %d of %d", d.table.n, d.table.max)
	}
}

func TestSecretsAreNeverIndexed(t *testing.T) {
	e, d := NewEncoder(), NewDecoder(4096, noTags)
	for range 3 {
		b := e.Field(e.Begin(nil), "authorization", "secret")
		b = e.Sensitive(b, "x-key", "secret")
		fs, err := decodeAll(d, b)
		if err != nil || len(fs) != 2 || !fs[0].Sensitive || !fs[1].Sensitive || d.table.n != 0 {
			t.Fatalf("%v, %v with %d entries", fs, err, d.table.n)
		}
	}
}

// TestDifferential carries random heads from our encoder to the decoder of x/net, and the other way, with table sizes that change.
func TestDifferential(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	ours, theirs := NewEncoder(), xhpack.NewDecoder(4096, nil)
	var theirOut strings.Builder
	theirEnc, ourDec := xhpack.NewEncoder(&theirOut), NewDecoder(4096, noTags)
	for range 5000 {
		if rnd.IntN(50) == 0 {
			n := rnd.IntN(4200)
			ours.SetMax(n)
			theirEnc.SetMaxDynamicTableSize(uint32(min(n, 4096)))
		}
		want := randomHead(rnd)
		block := ours.Begin(nil)
		theirOut.Reset()
		for _, f := range want {
			block = ours.Field(block, f.Name, f.Value)
			theirEnc.WriteField(xhpack.HeaderField{Name: f.Name, Value: f.Value})
		}
		got, err := theirs.DecodeFull(block)
		if err != nil || !slices.EqualFunc(got, want, func(a xhpack.HeaderField, b Field) bool { return a.Name == b.Name && a.Value == b.Value }) {
			t.Fatalf("x/net reads %v, %v, want %v", got, err, want)
		}
		mine, err := decodeAll(ourDec, []byte(theirOut.String()))
		if err != nil || !slices.Equal(mine, want) {
			t.Fatalf("we read %v, %v, want %v", mine, err, want)
		}
	}
}

func randomHead(rnd *rand.Rand) (fs []Field) {
	names := []string{":method", ":path", ":authority", ":status", "accept", "cache-control", "x-request-id", "x-a", "x-long-name-of-a-field", "server"}
	for range rnd.IntN(12) {
		value := make([]byte, rnd.IntN(40)*(1+rnd.IntN(2)*rnd.IntN(40)))
		if rnd.IntN(3) > 0 {
			value = value[:min(len(value), 3)]
		}
		for i := range value {
			value[i] = "abcdefGHIJ 0123\xff\x01"[rnd.IntN(17)]
			if len(value) <= 3 {
				value[i] = "ab"[rnd.IntN(2)]
			}
		}
		fs = append(fs, Field{Name: names[rnd.IntN(len(names))], Value: string(value)})
	}
	return fs
}

// FuzzDecode decodes whatever comes, alone and after another block, and compares with x/net: what both take must be equal.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"828684410f7777772e6578616d706c652e636f6d", "828684be58086e6f2d6361636865", "20 3fe11f 4001610162 be",
		"400a637573746f6d2d6b65790c637573746f6d2d76616c7565bebf", "108263ff 00", "ffffffff7f"} {
		f.Add(unhex(f, s), unhex(f, "be"))
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		ours, theirs := NewDecoder(4096, noTags), xhpack.NewDecoder(4096, nil)
		for _, block := range [][]byte{first, second} {
			got, err := decodeAll(ours, block)
			if err == nil && ours.table.size > 4096 {
				t.Fatalf("a table of %d bytes", ours.table.size)
			}
			want, theirErr := theirs.DecodeFull(block)
			if err != nil || theirErr != nil {
				return
			}
			if !slices.EqualFunc(want, got, func(a xhpack.HeaderField, b Field) bool { return a.Name == b.Name && a.Value == b.Value }) {
				t.Fatalf("we read %v, x/net reads %v", got, want)
			}
		}
	})
}

func TestSteadyHeadsAllocateNothing(t *testing.T) {
	e, d := NewEncoder(), NewDecoder(4096, noTags)
	head := []pair{{":authority", "reviews:9080"}, {"user-agent", "curl"}, {"x-request-id", "unique"}, {"accept", "*/*"}}
	block, store := make([]byte, 0, 500), make([]byte, 0, 1000)
	var f Field
	round := func() {
		b := e.Begin(block)
		for _, f := range head {
			b = e.Field(b, f.name, f.value)
		}
		d.Begin(b, store)
		for n := 0; ; n++ {
			if ok, err := d.Next(&f); err != nil || !ok && n != len(head) {
				t.Fatal(n, err)
			} else if !ok {
				return
			}
		}
	}
	if n := testing.AllocsPerRun(100, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkDecode(b *testing.B) {
	e, d := NewEncoder(), NewDecoder(4096, noTags)
	var block []byte
	store := make([]byte, 0, 1000)
	for range 3 {
		block = Static(Static(e.Begin(block[:0]), MethodGet), SchemeHTTP)
		for _, f := range []pair{{":path", "/productpage?u=normal"}, {":authority", "reviews:9080"}, {"user-agent", "curl/8"}, {"accept", "*/*"}, {"x-b3", "0123456789abcdef"}} {
			block = e.Field(block, f.name, f.value)
		}
		decodeAll(d, block)
	}
	b.ReportAllocs()
	var f Field
	for b.Loop() {
		d.Begin(block, store)
		for {
			if ok, _ := d.Next(&f); !ok {
				break
			}
		}
	}
}

func BenchmarkHuffman(b *testing.B) {
	coded := appendHuffman(nil, "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/130")
	out := make([]byte, 0, 200)
	b.SetBytes(int64(len(coded)))
	for b.Loop() {
		if _, ok := appendDecoded(out, coded); !ok {
			b.Fatal("refused")
		}
	}
}
