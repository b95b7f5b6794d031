package main

import "strings"

// near is the known name that is most like one that was mistyped; empty where none is like it.
func near(name string, known []string) string {
	best, least := "", min(len(name), 1+max(2, len(name)/3))
	for _, k := range known {
		if d := distance(strings.ToLower(strings.ReplaceAll(name, "_", "-")), k); d < least {
			best, least = k, d
		}
	}
	return best
}

// instead suggests a name for one that is unknown, or names all that are known.
func instead(name string, known []string) string {
	if best := near(name, known); best != "" {
		return "; did you mean " + best + "?"
	}
	return "; known are " + strings.Join(known, ", ")
}

// distance is Levenshtein's: how many letters must change to make b of a. Names are short; those that are not are far
// from all.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a)
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
