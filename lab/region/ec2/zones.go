package ec2

import (
	"fmt"
	"slices"
	"strings"
)

// ZoneID is what a zone is called in every account: apne2-az1 is the first zone of ap-northeast-2.
func (r *Records) ZoneID(zone string) string {
	return fmt.Sprintf("%s-az%d", shortRegion(r.Region), slices.Index(r.Zones, zone)+1)
}

// shortRegion leaves of ap-northeast-2 what names its zones: apne2.
func shortRegion(region string) string {
	parts := strings.Split(region, "-")
	if len(parts) != 3 {
		return strings.ReplaceAll(region, "-", "")
	}
	short := strings.NewReplacer("north", "n", "south", "s", "east", "e", "west", "w", "central", "c")
	return parts[0] + short.Replace(parts[1]) + parts[2]
}
