package convert_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/weftmesh/weft/internal/control/compile/convert"
	"github.com/weftmesh/weft/internal/control/model"
	"github.com/weftmesh/weft/internal/control/source"
)

// BenchmarkRead decodes and converts the examples of package compile, which have hundreds of objects.
func BenchmarkRead(b *testing.B) {
	files, err := filepath.Glob("../testdata/*/*.txtar")
	if err != nil {
		b.Fatal(err)
	}
	var texts [][]byte
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			b.Fatal(err)
		}
		texts = append(texts, archive.Files[0].Data)
	}
	b.ReportAllocs()
	objects := 0
	for b.Loop() {
		objects = 0
		for _, text := range texts {
			decoded, _ := source.Decode(source.LayerFile, "in.yaml", text)
			for _, o := range decoded {
				convert.Object(o, model.Settings{})
			}
			objects += len(decoded)
		}
	}
	b.ReportMetric(float64(objects), "objects")
}
