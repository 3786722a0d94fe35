// Package spelling says how near two words are, for messages that guess what somebody meant. It knows nothing else of
// the project.
package spelling

// short is how long a word is for which Distance allocates nothing.
const short = 128

// Distance counts the bytes to insert, delete, replace or swap with their neighbour on the way from a to b (optimal
// string alignment). Where that is more than most, it may return any number that is.
func Distance(a, b string, most int) int {
	var room [3][short + 1]int
	before, last, row := room[0][:], room[1][:], room[2][:]
	if len(b) > short {
		before, last, row = make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	}
	for j := range len(b) + 1 {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		near := i
		for j := 1; j <= len(b); j++ {
			differs := 1
			if a[i-1] == b[j-1] {
				differs = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+differs)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
			near = min(near, row[j])
		}
		if near > most+1 {
			// A swap reaches back over one row, so nothing below is less by more than it.
			return near
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
