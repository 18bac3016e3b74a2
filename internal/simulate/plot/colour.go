package plot

import "image/color"

// colour returns colours that people who see few can tell apart (Okabe and Ito, 2008).
func colour(i int) color.Color {
	palette := []color.RGBA{
		{0, 0, 0, 255}, {230, 159, 0, 255}, {86, 180, 233, 255}, {0, 158, 115, 255},
		{240, 228, 66, 255}, {0, 114, 178, 255}, {213, 94, 0, 255}, {204, 121, 167, 255},
	}
	return palette[i%len(palette)]
}
