package images

import (
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zonewise/zonewise/lab/images/layer"
)

// Write makes one more archive, which is no part of every lab: of an image by its name, with these files.
func Write(path, name string, tree layer.Tree, config v1.Config) error {
	return writeArchive(path, tree, recipe{refs: []string{name}, config: config}, "")
}
