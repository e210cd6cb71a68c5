/* Does what an NTP daemon does when it has found the time: sets the clock, tells the kernel that it is synchronised, and prints by how many
   nanoseconds it is ahead of the time since the boot. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/timex.h>
#include <time.h>

static long long nanos(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int count, char **arguments)
{
    struct timespec now = {.tv_sec = count > 1 ? atoll(arguments[1]) : 0};
    struct timex synchronised = {.modes = ADJ_STATUS | ADJ_MAXERROR | ADJ_ESTERROR, .status = STA_PLL};
    if (clock_settime(CLOCK_REALTIME, &now) != 0 || adjtimex(&synchronised) < 0) {
        perror("synchronise");
        return 1;
    }
    printf("%lld\n", nanos(CLOCK_REALTIME) - nanos(CLOCK_BOOTTIME));
    return 0;
}
